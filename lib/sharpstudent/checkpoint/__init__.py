"""What a run leaves behind and starts again from: whole files, the best epochs, the state to resume from."""

from sharpstudent.checkpoint.disk_space import check_room
from sharpstudent.checkpoint.resume import RunState, load_run_state, save_run_state
from sharpstudent.checkpoint.selection import BestCheckpoints
from sharpstudent.checkpoint.store import (
    Checkpoint,
    DamagedCheckpointError,
    copy_checkpoint,
    delete_checkpoint,
    export_model,
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
