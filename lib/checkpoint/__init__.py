"""What a run leaves behind and starts again from: whole files, the best epochs, the state to resume from."""

from lib.checkpoint.export import export_model
from lib.checkpoint.resume import RunState, load_run_state, save_run_state
from lib.checkpoint.room import check_room
from lib.checkpoint.selection import BestCheckpoints
from lib.checkpoint.store import (
    Checkpoint,
    DamagedCheckpointError,
    copy_checkpoint,
    delete_checkpoint,
    load_checkpoint,
    read_about,
    save_checkpoint,
)

__all__ = [
    "BestCheckpoints",
    "Checkpoint",
    "DamagedCheckpointError",
    "RunState",
    "check_room",
    "copy_checkpoint",
    "delete_checkpoint",
    "export_model",
    "load_checkpoint",
    "load_run_state",
    "read_about",
    "save_checkpoint",
    "save_run_state",
]
