"""Says what a detector's scores of one input mean: by person, over time, and for the file as a whole.

There are three answers: fake likely, no sign of manipulation found, and inconclusive with the reason. They rest on the
thresholds that the checkpoint stores, and on nothing else. Everything is summed up as it comes, so that memory does not
grow with the pictures of a long video.

Legend: a margin is the log-odds of fake before the temperature; a probability is calibrated with the temperature.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from sharpstudent.core.errors import format_count_of
from sharpstudent.core.types import Answer, Table
from sharpstudent.modalities.faces.detect import Tracker
from sharpstudent.report.chart import Chart, Palette, draw_line, draw_reference, style_axes
from sharpstudent.report.console import format_duration
from sharpstudent.report.text import NARROW, format_probability
from sharpstudent.tasks.deepfake.evaluation.calibration import find_stored
from sharpstudent.tasks.deepfake.evaluation.frames import LEAST_FRAMES, MEAN, Aggregation, aggregate
from sharpstudent.tasks.deepfake.evaluation.set_metrics import FRAME, name_level
from sharpstudent.tasks.deepfake.metrics import compute_margins
from sharpstudent.tasks.deepfake.report.results import FaceDetails, Moment, PersonDetails, Thresholds, Timeline

FAKE_LIKELY: Final = "fake_likely"
NO_SIGN: Final = "no_sign"
INCONCLUSIVE: Final = "inconclusive"
WANTED = "fpr_1pct"  # the operating point of "fake likely"; without it, the stored one of the fewest false alarms
UNLIKE_SHARE = 0.5  # of a person's faces beyond the distance, from which on the person is unlike the reference
MOMENTS, STRIP, PEOPLE_SHOWN = 6, 12, 5
PARTIAL_SECONDS = 10.0  # between two partial answers
CAVEAT = "A detector cannot prove that a recording is authentic: it knows only the kinds of fake that it learnt from."
COLUMNS = ("frame", "second", "person", "left", "top", "right", "bottom", "margin", "probability", "distance")


@dataclass
class Person:
    """One person of an input, followed from frame to frame.

    Attributes:
        margins: The margin of each face.
        seconds: When each was seen [s].
        side: The largest shorter side of a face [px].
        unlike: How many faces are unlike the reference.
        strip: Some faces, evenly spread over time: JPEG and second.
        moments: The faces of the highest margins: margin, number, second, JPEG.
        step: Every how many faces one is kept for the strip; it doubles when the strip is full.
    """

    margins: list[float] = field(default_factory=list[float])
    seconds: list[float] = field(default_factory=list[float])
    side: float = 0.0
    unlike: int = 0
    strip: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])
    moments: list[tuple[float, int, float, bytes]] = field(default_factory=list[tuple[float, int, float, bytes]])
    step: int = 1

    def add(self, margin: float, second: float, side: float, picture: bytes, *, unlike: bool) -> None:
        """Add one face.

        Args:
            margin: Its margin.
            second: When it was seen [s].
            side: Its shorter side [px].
            picture: The crop as JPEG.
            unlike: Whether it is unlike the reference.
        """
        number = len(self.margins)
        self.margins.append(margin)
        self.seconds.append(second)
        self.side, self.unlike = max(self.side, side), self.unlike + unlike
        is_high = len(self.moments) < MOMENTS or margin > self.moments[0][0]
        if not is_high and number % self.step:
            return
        if is_high:
            change = heapq.heappush if len(self.moments) < MOMENTS else heapq.heappushpop
            change(self.moments, (margin, number, second, picture))
        if number % self.step == 0:
            self.strip.append((second, picture))
            if len(self.strip) > 2 * STRIP:
                self.strip, self.step = self.strip[::2], 2 * self.step


def find_probability(margin: float, thresholds: Thresholds | None) -> float:
    """Compute the probability of fake: calibrated, or where no temperature is stored, that of the margin itself."""
    return 0.5 * (1.0 + math.tanh(0.5 * margin / (1.0 if thresholds is None else thresholds.temperature)))


def read_thresholds(
    stored: Mapping[str, Any], *, is_video: bool, rule: Aggregation = MEAN, views: str | None = None
) -> Thresholds | None:
    """Read the operating points of a checkpoint: those of the same views and of the same rule, as no others hold.

    Args:
        stored: The checkpoint's description.
        is_video: Whether the score is that of a video.
        rule: The rule that makes one score of its frames. For the mean alone, the thresholds of single pictures stand
            in where none of videos are stored.
        views: The name of the views that are averaged; None without.

    Returns:
        The thresholds; None where none are stored.
    """
    calibration = find_stored(stored, views) or {}
    points = calibration.get("operating_points") or {}
    level = name_level(rule) if is_video and (points.get(name_level(rule)) or rule != MEAN) else FRAME
    named = points.get(level)
    if not named:
        return None
    high = named.get(WANTED) or min(named.values(), key=lambda point: (point["fpr"], -point["threshold"]))
    low = min(named.values(), key=lambda point: point["threshold"])
    return Thresholds(
        temperature=float(calibration["temperature"]),
        high=high["threshold"],
        low=low["threshold"],
        false_alarms=high["fpr"],
        found=low["tpr"],
        level=level,
        chosen_on=calibration["fitted_on"],
    )


@dataclass(frozen=True)
class PersonAnswer:
    """The answer about one person.

    Attributes:
        outcome: The answer in one word.
        why: Why it is inconclusive; "" otherwise.
        margin: The score: the mean of the person's probabilities or another rule, as log-odds.
        probability: The calibrated probability of fake; without a stored temperature, that of the margin itself.
        is_seen: Whether the person was seen in enough frames.
    """

    outcome: Literal["fake_likely", "no_sign", "inconclusive"]
    why: str
    margin: float
    probability: float
    is_seen: bool = True


class Summary:
    """Sums up the tables of one input."""

    def __init__(self, stored: Mapping[str, Any]) -> None:
        """Begin with nothing seen.

        Args:
            stored: The description of the model.
        """
        self._stored, self._tracker = stored, Tracker()
        asked = stored.get("asked") or {}
        self._rule, self._views = Aggregation(asked.get("video_rule") or MEAN.name), asked.get("views")
        familiar = stored.get("familiar")
        self._distance = None if familiar is None else float(familiar["threshold"])
        self.people: list[Person] = []
        self.frames = self.frames_with_face = 0
        self.remarks: dict[str, int] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.by_second: dict[int, list[float]] = {}  # the sum, number, lowest and highest margin of each second

    @property
    def is_video(self) -> bool:
        """Whether there are several frames."""
        return self.frames > 1

    def add(self, table: Table) -> None:
        """Add the rows of one frame, or a remark."""
        if "logits" not in table:
            for frame, reason in zip(table["frame"].tolist(), table["reason"].tolist(), strict=True):
                self.frames += frame >= 0
                if reason:
                    self.remarks[reason] = self.remarks.get(reason, 0) + 1
            return
        frame, second = int(table["frame"][0]), float(table["second"][0])
        self.frames, self.frames_with_face = self.frames + 1, self.frames_with_face + 1
        boxes = np.array([list(box) for box in table["box"]], np.float64)
        distances = table.get("distance")
        for row, track in enumerate(self._tracker.add(boxes).tolist()):
            if track == len(self.people):
                self.people.append(Person())
            margin = float(compute_margins(table)[row])
            distance = None if distances is None else float(distances[row])
            unlike = distance is not None and self._distance is not None and distance > self._distance
            side = float(np.min(boxes[row, 2:] - boxes[row, :2]))
            self.people[track].add(margin, second, side, table["picture"][row], unlike=unlike)
            self.rows.append((frame, second, track, *boxes[row].round(1).tolist(), margin, distance))
            bin_ = self.by_second.setdefault(int(second), [0.0, 0, math.inf, -math.inf])
            bin_[0], bin_[1] = bin_[0] + margin, bin_[1] + 1
            bin_[2], bin_[3] = min(bin_[2], margin), max(bin_[3], margin)

    def judge(self, person: Person, thresholds: Thresholds | None) -> PersonAnswer:
        """Answer about one person by the stored thresholds."""
        margins = np.array(person.margins)
        margin = float(aggregate(margins, np.zeros(len(margins), np.int64), self._rule)[0])
        probability = find_probability(margin, thresholds)
        why, is_seen = "", not self.is_video or len(margins) >= LEAST_FRAMES
        if not is_seen:
            why = f"a face was found in {format_count_of(len(margins), 'frame')} only"
        elif person.unlike >= UNLIKE_SHARE * len(margins) and person.unlike:
            why = "the face is unlike the material that the model was made with"
        elif thresholds is None:
            why = f"no thresholds{self._tell_scoring()} are stored with the model"
        elif thresholds.low <= margin < thresholds.high:
            low, high = (_tell(find_probability(one, thresholds)) for one in (thresholds.low, thresholds.high))
            why = f"that is between its thresholds, {low} and {high}"
        if why or thresholds is None:
            return PersonAnswer(INCONCLUSIVE, why, margin, probability, is_seen)
        return PersonAnswer(FAKE_LIKELY if margin >= thresholds.high else NO_SIGN, "", margin, probability)

    def answer(self, *, is_final: bool) -> Answer:
        """Answer about what has been seen so far.

        Args:
            is_final: Whether the input has been read to its end; only then charts and pictures are made.

        Returns:
            The answer.
        """
        thresholds = read_thresholds(self._stored, is_video=self.is_video, rule=self._rule, views=self._views)
        order = np.argsort(self._tracker.rank(), kind="stable").tolist()  # the person with the largest faces first
        found = [(self.people[track], self.judge(self.people[track], thresholds)) for track in order]
        number_of = {track: number for number, track in enumerate(order, 1)}
        chosen = _choose(found)
        outcome = INCONCLUSIVE if chosen is None else found[chosen][1].outcome
        answer = Answer(
            outcome=outcome,
            sentence=self._write_sentence(found, chosen, thresholds),
            reasons=tuple(self._list_reasons(found, chosen, thresholds)),
            score=None if chosen is None else round(found[chosen][1].probability, 6),
        )
        if not is_final:
            return answer
        rows = [
            (*row[:2], number_of[row[2]], *row[3:8], round(find_probability(row[7], thresholds), 6), row[8])
            for row in self.rows
        ]
        charts = (self._draw_timeline(thresholds),) if self.is_video and self.by_second else ()
        return Answer(
            **{name: getattr(answer, name) for name in ("outcome", "sentence", "reasons", "score")},
            details=self._describe(found, thresholds).model_dump(mode="json"),
            columns=COLUMNS,
            rows=rows,
            charts=charts,
            pictures=self._list_pictures(found, thresholds),
        )

    def _tell_scoring(self) -> str:
        """Tell how scores are made, where that is not the default: `of videos by max in the views flip`."""
        of_videos = f" of videos by {self._rule.name}" if self.is_video and self._rule != MEAN else ""
        return of_videos + ("" if self._views is None else f" in the views {self._views}")

    def _write_sentence(
        self, found: list[tuple[Person, PersonAnswer]], chosen: int | None, thresholds: Thresholds | None
    ) -> str:
        """Write the answer about the input in one sentence of at most 30 words."""
        if chosen is None:
            return f"Inconclusive: {self._explain_no_face()}."
        finding = found[chosen][1]
        who = "the face" if not self.is_video else "the person"
        who = who if len(found) == 1 else f"{'person' if self.is_video else 'face'} {chosen + 1} of {len(found)}"
        score = _tell(finding.probability)
        if finding.outcome == INCONCLUSIVE:
            return f"Inconclusive: {who} scores {score} for fake, and {finding.why}."
        assert thresholds is not None
        if finding.outcome == FAKE_LIKELY:
            share = "none" if thresholds.false_alarms == 0 else _format_share(thresholds.false_alarms)
            return f"Fake likely: {who} scores {score} for fake, where {share} of the real ones raised a false alarm."
        share = _format_share(thresholds.found)
        return f"No sign of manipulation found: {who} scores {score} for fake, and {share} of known fakes score higher."

    def _explain_no_face(self) -> str:
        reasons = [reason for reason in self.remarks if "ends early" not in reason]
        if self.frames == 1 and reasons:
            return reasons[0]
        return f"no face to judge was found in {format_count_of(self.frames, 'frame')}"

    def _list_reasons(
        self, found: list[tuple[Person, PersonAnswer]], chosen: int | None, thresholds: Thresholds | None
    ) -> Iterator[str]:
        """List further sentences: what the answer rests on, and what it does not say."""
        if chosen is not None and len(found) > 1:
            shown = "; ".join(
                f"{number} {finding.outcome.replace('_', ' ')} ({_tell(finding.probability)})"
                for number, (_, finding) in enumerate(found[:PEOPLE_SHOWN], 1)
            )
            yield f"Each of {len(found)} is judged alone, the largest first, so that false alarms add up: {shown}."
        if chosen is not None and self.is_video:
            highest = [second for _, _, second, _ in sorted(found[chosen][0].moments, reverse=True)[:3]]
            moments = dict.fromkeys(format_duration(second) for second in sorted(highest))
            yield f"The highest scores are at {', '.join(moments)}."
        if chosen is not None and (self._views is not None or (self.is_video and self._rule != MEAN)):
            yield f"Scores are those{self._tell_scoring()}; thresholds that were chosen otherwise do not hold for them."
        if chosen is not None and thresholds is not None:
            yield f"Probability and thresholds were chosen on {thresholds.chosen_on}."
            if self.is_video and thresholds.level == "frame":
                yield "The thresholds are those of single pictures: none of videos are stored with the model."
        if chosen is not None and thresholds is None:
            also = "" if self._views is None else f" --views {self._views}"
            also += f" --video-rules {self._rule.name}" if self.is_video and self._rule != MEAN else ""
            advice = "Thresholds come from labelled files: python evaluate_model.py MODEL --validation SET --store"
            yield advice + also
        if chosen is not None:
            yield (
                "Whether it is unlike the model's material was not checked: no reference is stored with the model."
                if self._distance is None
                else "Its features were compared with those of the material that the model was made with."
            )
        for reason in (one for one in self.remarks if "ends early" in one):
            yield f"Only a part was read: {reason}."
        yield CAVEAT

    def _describe(self, found: list[tuple[Person, PersonAnswer]], thresholds: Thresholds | None) -> FaceDetails:
        """Describe the answer for other programs."""
        people = [
            PersonDetails(
                person=number,
                outcome=finding.outcome,
                why=finding.why or None,
                probability=round(finding.probability, 6),
                margin=finding.margin,
                faces=len(person.margins),
                first_second=person.seconds[0],
                last_second=person.seconds[-1],
                side=round(person.side, 1),
                unlike=person.unlike if self._distance is not None else None,
                moments=tuple(
                    Moment(second=second, margin=margin)
                    for margin, _, second, _ in sorted(person.moments, reverse=True)
                ),
            )
            for number, (person, finding) in enumerate(found, 1)
        ]
        seconds = sorted(self.by_second)
        timeline = Timeline(
            second=tuple(seconds),
            mean=tuple(self.by_second[one][0] / self.by_second[one][1] for one in seconds),
            low=tuple(self.by_second[one][2] for one in seconds),
            high=tuple(self.by_second[one][3] for one in seconds),
        )
        return FaceDetails(
            kind="video" if self.is_video else "picture",
            frames=self.frames,
            frames_with_face=self.frames_with_face,
            people=tuple(people),
            timeline=timeline if self.is_video else None,
            thresholds=thresholds,
            remarks=self.remarks,
        )

    def _list_pictures(
        self, found: list[tuple[Person, PersonAnswer]], thresholds: Thresholds | None
    ) -> dict[str, list[tuple[bytes, str]]]:
        """List the highest moments of all people, and a strip of each."""

        def tell(margin: float) -> str:
            return _tell(find_probability(margin, thresholds))

        if not self.is_video:
            return {
                "Faces": [
                    (person.strip[0][1], f"{number}: {tell(person.margins[0])} for fake")
                    for number, (person, _) in enumerate(found, 1)
                ]
            }
        every = [(*moment, number) for number, (person, _) in enumerate(found, 1) for moment in person.moments]
        highest = sorted(every, reverse=True)[:MOMENTS]
        pictures = {
            "Highest moments": [
                (content, f"{format_duration(second)}, person {number}: {tell(margin)} for fake")
                for margin, _, second, content, number in highest
            ]
        }
        for number, (person, _) in enumerate(found[:PEOPLE_SHOWN], 1):
            step = -(-len(person.strip) // STRIP)
            pictures[f"Person {number}"] = [
                (content, format_duration(second)) for second, content in person.strip[::step]
            ]
        return pictures

    def _draw_timeline(self, thresholds: Thresholds | None) -> Chart:
        """Draw the probability of each second, with the lowest and the highest face of that second around it."""
        temperature = 1.0 if thresholds is None else thresholds.temperature
        seconds = sorted(self.by_second)
        bins = np.array([self.by_second[one] for one in seconds])
        mean, low, high = (
            0.5 * (1.0 + np.tanh(0.5 * values / temperature))
            for values in (bins[:, 0] / bins[:, 1], bins[:, 2], bins[:, 3])
        )

        def draw(figure: Any, palette: Palette) -> None:
            axes = figure.subplots()
            style_axes(axes, palette, x="second", y="probability of fake")
            axes.set_ylim(0, 1)
            axes.fill_between(seconds, low, high, color=palette.first, alpha=0.25, linewidth=0)
            draw_line(axes, palette, 0, seconds, mean, every=max(1, len(seconds) // 40))
            for margin in () if thresholds is None else {thresholds.low, thresholds.high}:
                draw_reference(axes, palette, [seconds[0], seconds[-1]], [find_probability(margin, thresholds)] * 2)

        return Chart(
            name="timeline",
            title="Timeline",
            alt=f"Probability of fake over {len(seconds)} seconds, {mean.min():.2f} to {mean.max():.2f}.",
            hint="Line: mean of a second's faces; band: its lowest and highest face; dashed: the thresholds.",
            draw=draw,
            columns=("second", "mean", "low", "high"),
            rows=tuple(zip(seconds, mean.tolist(), low.tolist(), high.tolist(), strict=True)),
            keys=(),
            height=2.2,
        )


def _tell(probability: float) -> str:
    """Write a probability in per cent, with ordinary spaces: the sentence also goes to terminals and programs."""
    return format_probability(probability).replace(NARROW, " ")


def _format_share(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _choose(found: list[tuple[Person, PersonAnswer]]) -> int | None:
    """Choose the person whom the answer is about: the likeliest fake, else the first that is inconclusive, else any.

    A person who was seen in too few frames decides only where everybody was.
    """
    if not found:
        return None
    fakes = [number for number, (_, finding) in enumerate(found) if finding.outcome == FAKE_LIKELY]
    if fakes:
        return max(fakes, key=lambda number: found[number][1].margin)
    seen = [number for number, (_, finding) in enumerate(found) if finding.is_seen]
    unsure = [number for number in seen if found[number][1].outcome == INCONCLUSIVE]
    return (unsure or seen or [0])[0]


def describe_faces(tables: Iterator[Table], stored: Mapping[str, Any]) -> Iterator[Answer]:
    """Answer about one input.

    Args:
        tables: Its rows, a frame in each.
        stored: The description of the model.

    Yields:
        Partial answers from time to time, and the final one.
    """
    summary, last = Summary(stored), time.monotonic()
    for table in tables:
        summary.add(table)
        if time.monotonic() - last > PARTIAL_SECONDS:
            yield summary.answer(is_final=False)
            last = time.monotonic()
    yield summary.answer(is_final=True)
