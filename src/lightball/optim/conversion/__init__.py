"""Conversion of a live optimizer, in place and in the middle of a run: momentum dropped, or given.

- `rule`: what a parameter group's momentum amounts to, and whose groups can be read.
- `measured`: whether steps are what the groups say, by an audit.
- `scaling`: numbers of a group and of a scheduler times a factor.
- `schedulers`: a scheduler carried over, by its absolute rates or written out.
- `written_out`: the rates of the rest of a run, averaged where momentum changes.
- `loading`: older checkpoints are converted when they are loaded.
- `drop`, `restore`: the two public functions; `outcome`: what they return.
"""

from lightball.optim.conversion.drop import drop_momentum
from lightball.optim.conversion.outcome import Dropped, GroupChange, Restored
from lightball.optim.conversion.restore import with_momentum
from lightball.optim.conversion.written_out import WrittenOutLR

__all__ = ["Dropped", "GroupChange", "Restored", "WrittenOutLR", "drop_momentum", "with_momentum"]
