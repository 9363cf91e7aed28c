"""The page of `lightball advise`: what a run would lose without momentum, and what that rests on."""
