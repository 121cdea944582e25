"""Reads and judges inputs on the nodes of a Ray cluster, an input a task; answers are made where the command runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Sequence

from sharpstudent.core.errors import UserError
from sharpstudent.core.ray_pool import RayPool
from sharpstudent.core.types import InputSource, Table
from sharpstudent.data.dataset import UnreadableSample
from sharpstudent.deploy.familiar import open_familiar
from sharpstudent.deploy.inputs import PredictionCommand
from sharpstudent.deploy.predictor import Predictor
from sharpstudent.evaluation.opened import choose_device
from sharpstudent.evaluation.renderer import load_renderer
from sharpstudent.task import Task


class ClusterPredictor:
    """Gives the tables of inputs as `Predictor` does, in the order in which inputs end.

    Attributes:
        is_settled: Whether each sample that was read has been given as a table: an input comes as a whole.
    """

    is_settled = True

    def __init__(self, task: type[Task], command: PredictionCommand, say: Callable[[str], None]) -> None:
        """Keep what the processes on the nodes need.

        Args:
            task: The class of the task.
            command: The command line, with the address of the cluster.
            say: Prints a line.
        """
        assert command.ray is not None
        build = functools.partial(build_reader, task, command)
        self._pool = functools.partial(RayPool, build, command.ray, count=None, say=say)

    def read(self, sources: Sequence[InputSource], *, workers: int) -> Generator[tuple[InputSource, Iterator[Table]]]:
        """Give each input with the iterator of its tables.

        Args:
            sources: The inputs.
            workers: Is not used: each process reads one input at a time.

        Yields:
            The inputs, in the order in which they end. The iterator raises UnreadableSample where its input cannot be
            read.

        Raises:
            UserError: For a camera or a stream, which has no end, and where the cluster does not work.
        """
        for source in sources:
            if source.path is None:
                raise UserError.about("--ray", "is for files", got=source.name, remedy="leave --ray out")
        with self._pool() as pool:
            for source, (tables, error) in pool.run(sources, lambda: None):
                yield source, _give(tables, error)


def build_reader(
    task_class: type[Task], command: PredictionCommand
) -> Callable[[InputSource], tuple[list[Table], UnreadableSample | None]]:
    """Make the function that reads and judges one input, with the model loaded once.

    Args:
        task_class: The class of the task.
        command: The command line.

    Returns:
        The function; it gives the tables of an input, and the reason why it cannot be read to its end, if any.
    """
    renderer = load_renderer(task_class)
    device = choose_device(command.device, remedy="--device auto")
    opened = renderer.open_model(command.model, device)
    familiar = open_familiar(opened, lambda line: None)
    predictor = Predictor(opened, renderer.open_task(opened), device, batch_size=command.batch_size, probe=familiar)

    def read(source: InputSource) -> tuple[list[Table], UnreadableSample | None]:
        tables: list[Table] = []
        for _, found in predictor.read([source], workers=1):
            try:
                tables.extend(found)
            except UnreadableSample as error:
                return tables, error
        return tables, None

    return read


def _give(tables: list[Table], error: UnreadableSample | None) -> Iterator[Table]:
    yield from tables
    if error is not None:
        raise error
