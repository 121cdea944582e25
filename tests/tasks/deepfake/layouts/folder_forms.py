"""Forms of folders and tables as people have them, with the reading of each: shaped after public reports.

A line `PATH = CLASS SPLIT PERSON` is a file and what is to be understood of it; `-` stands for nothing, `*` for the
file itself, `left out` for a file that is named with its reason. Without `=` the file is no picture or video.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Form:
    """One form: its name in the docs, its files with their readings, its table, or words of the refusal."""

    name: str
    lines: tuple[str, ...]
    refused: str = ""
    table: str | None = None
    people: str | None = None
    label: int | None = None
    source: str = ""  # below the made folder; "" for the folder itself

    def make(self, root: Path) -> Path:
        """Write the files, no two alike; return what an entrance is given."""
        for number, line in enumerate(self.lines):
            path = root / line.partition(" = ")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"face\nfile {number}\n", encoding="utf-8")
        if self.table is not None:
            root.mkdir(parents=True, exist_ok=True)
            (root / "table.csv").write_bytes(self.table.encode())
        return root / (self.source or ("table.csv" if self.table is not None and not self.refused_beside else ""))

    @property
    def refused_beside(self) -> bool:
        """Whether the folder is given and the table lies beside its files."""
        return self.source == "."

    def read(self) -> dict[str, tuple[int | None, str | None, str]]:
        """The reading of each file that is used."""
        found: dict[str, tuple[int | None, str | None, str]] = {}
        for line in self.lines:
            path, _, reading = line.partition(" = ")
            if reading and reading != "left out":
                label, split, person = reading.split(" ", 2)
                found[path] = (
                    {"real": 0, "fake": 1, "-": None}[label],
                    None if split == "-" else split,
                    Path(path).with_suffix("").as_posix() if person == "*" else person,
                )
        return found

    def list_left_out(self) -> list[str]:
        """The files that are named with a reason."""
        return [line.partition(" = ")[0] for line in self.lines if " = " not in line or line.endswith("= left out")]

    def describe(self) -> str:
        """What the docs say of it."""
        if self.refused:
            return "refused"
        readings = self.read().values()
        labels = Counter(label for label, _, _ in readings)
        splits = Counter(split for _, split, _ in readings if split)
        classes = ", ".join(f"{labels[label]} {name}" for label, name in ((0, "real"), (1, "fake")) if labels[label])
        classes = classes or f"{labels[None]} of no class"
        named = {person for (_, _, person), path in zip(readings, self.read(), strict=True) if person != _own(path)}
        words = [classes, ", ".join(f"{name} {splits[name]}" for name in ("train", "val", "test") if splits[name])]
        words.append(f"people: {', '.join(sorted(named))}" if named else "each file on its own")
        words.append(f"{len(self.list_left_out())} left out" if self.list_left_out() else "")
        return "; ".join(word for word in words if word)


def _own(path: str) -> str:
    return Path(path).with_suffix("").as_posix()


def pair(real: str, fake: str, split: str = "-") -> tuple[str, ...]:
    """Two files of each class, in folders that say it."""
    return (
        *(f"{real}/{name}.jpg = real {split} *" for name in "wxyz"),
        *(f"{fake}/{name}.jpg = fake {split} *" for name in "wxyz"),
    )


def triple(real: str, fake: str, train: str = "train", val: str = "val", test: str = "test") -> tuple[str, ...]:
    """The two classes below each of three splits."""
    names = ((train, "train"), (val, "val"), (test, "test"))
    return tuple(line for name, split in names for line in pair(f"{name}/{real}", f"{name}/{fake}", split))


def people(*names: str) -> tuple[str, ...]:
    """Two photos of each person, of no class."""
    return tuple(f"{name}/{number}.jpg = - - {name}" for name in names for number in (1, 2))


def tabled(*lines: str) -> str:
    """A table of lines, each with a line end."""
    return "".join(f"{line}\n" for line in lines)


MANY = 12  # the test lowers the bound of 100 to this number
FORMS = (
    # people and files without a class
    Form("PERSON/*.jpg", people("Ann", "Bob", "Cy")),
    Form("PERSON/*.jpg with other files beside", (*people("Ann", "Bob"), "Ann/notes.txt", "README.md", "raw/a.cr2")),
    Form("*.jpg", tuple(f"{name}.jpg = - - *" for name in ("Ann", "Bob", "Cy"))),
    Form("PERSON/*.jpg, names in any script", people("张伟", "Đorđe Šišić", "Ζωή", "محمد", "Анна Иванова", "👩‍🚀")),
    Form("PERSON/DATE/*.jpg", tuple(f"{n}/2020-01-0{d}/1.jpg = - - {n}" for n in ("Ann", "Bob") for d in (1, 2))),
    Form("images/PERSON/*.jpg", tuple(f"images/{n}/{i}.jpg = - - {n}" for n in ("Ann", "Bob") for i in (1, 2))),
    Form("photos/*.jpg (hundreds)", tuple(f"photos/{i:06}.jpg = - - *" for i in range(MANY))),
    Form(
        "FOLDER/*.jpg (hundreds in one folder)", tuple(f"holiday/{i:06}.jpg" for i in range(MANY)), refused="one name"
    ),
    Form(
        "the same with --people files",
        tuple(f"holiday/{i:06}.jpg = - - *" for i in range(MANY)),
        people="files",
    ),
    Form(
        "the same with --people folders",
        (*(f"holiday/{i:06}.jpg = - - holiday" for i in range(MANY)), "Bob/1.jpg = - - Bob"),
        people="folders",
    ),
    Form(
        "PERSON_0001.jpg (LFW in one folder)",
        tuple(f"{n}_000{i}.jpg = - - {n}" for n in ("Ann", "Bob") for i in (1, 2)),
    ),
    Form("Real Madrid/, Bob/ (a name with a word of a class)", people("Real Madrid", "Bob")),
    Form("Dev Patel/, Val Kilmer/ (names with words of splits)", people("Dev Patel", "Val Kilmer")),
    Form("001/, 002/, 003/", people("001", "002", "003")),
    # classes
    Form("{real,fake}/*.jpg", pair("real", "fake")),
    Form("{Real,Fake}/*.jpg", pair("Real", "Fake")),
    Form("{REAL,FAKE}/*.jpg", pair("REAL", "FAKE")),
    Form(
        "{real,fake}/PERSON/*.jpg",
        tuple(f"{c}/{n}/1.jpg = {c} - {n}" for c in ("real", "fake") for n in ("Ann", "Bob")),
    ),
    Form(
        "PERSON/{real,fake}/*.jpg",
        tuple(f"{n}/{c}/1.jpg = {c} - {n}" for c in ("real", "fake") for n in ("Ann", "Bob")),
    ),
    Form(
        "PERSON/{0_real,1_fake}/*.jpg",
        tuple(f"{n}/{i}_{c}/1.jpg = {c} - {n}" for i, c in enumerate(("real", "fake")) for n in ("Ann", "Bob")),
    ),
    Form("{0_real,1_fake}/*.jpg", pair("0_real", "1_fake")),
    Form("{0_fake,1_real}/*.jpg", pair("1_real", "0_fake")),
    Form("{real_images,fake_images}/*.jpg", pair("real_images", "fake_images")),
    Form("{RealFaces,DeepFakes}/*.jpg", pair("RealFaces", "DeepFakes")),
    Form("{original,manipulated}/*.jpg", pair("original", "manipulated")),
    Form("{original,altered}/*.jpg", pair("original", "altered")),
    Form("{genuine,forged}/*.jpg", pair("genuine", "forged")),
    Form("{authentic,synthesis}/*.jpg", pair("authentic", "synthesis")),
    Form("{bona-fide,spoof}/*.jpg", pair("bona-fide", "spoof")),
    Form("{Original,Swapped}/*.jpg", pair("Original", "Swapped")),
    Form("{real,deepfake}/*.jpg", pair("real", "deepfake")),
    Form("{real,AI generated}/*.jpg", pair("real", "AI generated")),
    Form("{real,not_real}/*.jpg", pair("real", "not_real")),
    Form("{echt,gefälscht}/*.jpg", pair("echt", "gefälscht")),
    Form("{vrai,faux}/*.jpg", pair("vrai", "faux")),
    Form("{真实,伪造}/*.jpg", pair("真实", "伪造")),
    Form("{настоящие,поддельные}/*.jpg", pair("настоящие", "поддельные")),
    Form("{진짜,가짜}/*.jpg", pair("진짜", "가짜")),
    Form("fake/*.jpg alone", tuple(f"fake/{name}.jpg = fake - *" for name in "xyz")),
    Form("Deepfakes/c23/videos/*.mp4 alone", ("Deepfakes/c23/videos/000_003.mp4 = fake - *",)),
    Form(
        "{real_celeba,fake_stylegan,fake_pggan}/*.jpg",
        (
            "real_celeba/1.jpg = real - celeba",
            "fake_stylegan/1.jpg = fake - stylegan",
            "fake_pggan/1.jpg = fake - pggan",
        ),
    ),
    Form("{real,fake}/ and other/", (*pair("real", "fake"), "other/3.jpg = left out", "4.jpg = left out")),
    Form(
        "{real,fake}/FILM_FRAME.png",
        tuple(
            f"{c}/{film}_{i:04}.png = {c} - {film}" for c in ("real", "fake") for film in ("071", "072") for i in (0, 9)
        ),
    ),
    Form(
        "{real,fake}/CLIP/FRAME.png",
        tuple(f"{c}/{c[0]}lip7/{i}.png = {c} - {c[0]}lip7" for c in ("real", "fake") for i in (0, 9)),
    ),
    Form(
        "real_and_fake_face/{training_real,training_fake}/*.jpg",
        pair("real_and_fake_face/training_real", "real_and_fake_face/training_fake", "train"),
    ),
    Form(
        "{real,fake}/ of photos and videos",
        ("real/a.jpg = real - *", "real/b.mp4 = real - *", "fake/c.jpg = fake - *", "fake/d.MOV = fake - *"),
    ),
    # splits
    Form("{train,val,test}/{real,fake}/*.jpg", triple("real", "fake")),
    Form("{train,valid,test}/{real,fake}/*.jpg", triple("real", "fake", val="valid")),
    Form("{Train,Validation,Test}/{Real,Fake}/*.jpg", triple("Real", "Fake", "Train", "Validation", "Test")),
    Form(
        "real-vs-fake/{train,valid,test}/{real,fake}/*.jpg",
        tuple(
            f"real-vs-fake/{line.partition(' = ')[0]} = {line.partition(' = ')[2]}"
            for line in triple("real", "fake", val="valid")
        ),
    ),
    Form("{training_real,training_fake}/*.jpg", pair("training_real", "training_fake", "train")),
    Form(
        "{train_real,train_fake,test_real,test_fake}/",
        (*pair("train_real", "train_fake", "train"), *pair("test_real", "test_fake", "test")),
    ),
    Form(
        "{real,fake}/{train,test}/*.jpg",
        (*pair("real/train", "fake/train", "train"), *pair("real/test", "fake/test", "test")),
    ),
    Form("Train/Fake/*.jpg alone", tuple(f"Train/Fake/{name}.jpg = fake train *" for name in "xyz")),
    Form(
        "{train,val}/PERSON/*.jpg",
        tuple(
            f"{s}/{n}/{i}.jpg = - {s} {n}"
            for s, n in (("train", "Ann"), ("train", "Bob"), ("val", "Cy"))
            for i in (1, 2)
        ),
    ),
    Form(
        "{train,test}/{real,fake}/ and extra.jpg",
        (
            *pair("train/real", "train/fake", "train"),
            *pair("test/real", "test/fake", "test"),
            "train/extra.jpg = left out",
        ),
    ),
    Form(
        "archive/{train,test}/{real,fake}/*.jpg",
        (
            *pair("archive/train/real", "archive/train/fake", "train"),
            *pair("archive/test/real", "archive/test/fake", "test"),
        ),
    ),
    # tables
    Form(
        "table of files in one folder",
        ("pics/a.jpg = real - *", "pics/b.jpg = fake - *", "pics/c.jpg = real - *"),
        table=tabled("path,label", "pics/a.jpg,real", "pics/b.jpg,fake", "pics/c.jpg,real"),
    ),
    Form(
        "table: path,label",
        ("a.jpg = real - *", "b.jpg = fake - *", "c.jpg = real - *"),
        table=tabled("path,label", "a.jpg,real", "b.jpg,fake", "c.jpg,real"),
    ),
    Form(
        "table: path,label,person,split",
        (
            "a.jpg = real train Ann",
            "b.jpg = fake train Ann",
            "c.jpg = real val Bob",
            "d.jpg = fake val Bob",
            "e.jpg = real test Cy",
        ),
        table=tabled(
            "path,label,person,split",
            "a.jpg,REAL,Ann,train",
            "b.jpg,FAKE,Ann,train",
            "c.jpg,REAL,Bob,valid",
            "d.jpg,FAKE,Bob,valid",
            "e.jpg,REAL,Cy,test",
        ),
    ),
    Form(
        "table: path,person",
        ("a.jpg = - - Ann", "b.jpg = - - Bob"),
        table=tabled("path,person", "a.jpg,Ann", "b.jpg,Bob"),
    ),
    Form(
        "table with semicolons, other order, quotes, CRLF and a byte order mark",
        ("x y/a.jpg = real - Ann", "b.jpg = fake - Bob"),
        table='\ufefflabel;person;path\r\nreal;"Ann";"x y/a.jpg"\r\nfake;Bob;b.jpg\r\n',
    ),
    Form(
        "table with tabs and backslashes",
        ("real faces/a.jpg = real - Ann", "sub/b.jpg = fake - Bob"),
        table="image\tclass\tidentity\nreal faces\\a.jpg\treal\tAnn\nsub\\b.jpg\tfake\tBob\n",
    ),
    Form(
        "table: fake with YES and NO",
        ("a.jpg = real - *", "b.jpg = fake - *"),
        table=tabled("file,fake", "a.jpg,NO", "b.jpg,YES"),
    ),
    Form(
        "table: is_real with 1 and 0",
        ("a.jpg = real - *", "b.jpg = fake - *"),
        table=tabled("filename,is_real", "a.jpg,1", "b.jpg,0"),
    ),
    Form(
        "table: methods of fakes",
        ("a.mp4 = real - *", "b.mp4 = fake - *", "c.mp4 = fake - *"),
        table=tabled("video,method", "a.mp4,original", "b.mp4,Deepfakes", "c.mp4,FaceSwap"),
    ),
    Form(
        "table whose paths say the class",
        ("train/real/a.jpg = real train *", "train/fake/b.jpg = fake train *"),
        table=tabled("path", "train/real/a.jpg", "train/fake/b.jpg"),
    ),
    Form(
        "table with a missing and an unnamed file",
        ("a.jpg = real - *", "b.jpg = fake - *", "c.jpg = left out"),
        table=tabled("path,label", "a.jpg,real", "b.jpg,fake", "gone.jpg,fake"),
    ),
    # what can be meant in two ways
    Form("{0,1}/*.jpg", ("0/a.jpg", "1/b.jpg"), refused="nothing says which of them is real"),
    Form("{yes,no}/*.jpg", ("yes/a.jpg", "no/b.jpg"), refused="nothing says which of them is real"),
    Form(
        "{train,test}/{0,1}/*.jpg",
        ("train/0/a.jpg", "train/1/b.jpg", "test/0/a.jpg", "test/1/b.jpg"),
        refused="nothing says which of them is real",
    ),
    Form("{source,target}/*.mp4", ("source/a.mp4", "target/a.mp4"), refused="nothing says which of them is real"),
    Form(
        "table: label with 1 and 0",
        ("a.jpg", "b.jpg"),
        refused="do not say which is real",
        table=tabled("path,label", "a.jpg,0", "b.jpg,1"),
    ),
    Form(
        "table: label with other words",
        ("a.jpg", "b.jpg"),
        refused="neither real nor fake",
        table=tabled("path,label", "a.jpg,real", "b.jpg,maybe"),
    ),
    Form(
        "table of labels beside the files",
        ("a.jpg", "b.jpg"),
        refused="may say which files are real",
        table=tabled("path,label", "a.jpg,real", "b.jpg,fake"),
        source=".",
    ),
    Form(
        "table whose label contradicts a folder",
        ("real/a.jpg", "b.jpg"),
        refused="two ways",
        table=tabled("path,label", "real/a.jpg,fake", "b.jpg,real"),
    ),
    Form(
        "dfdc_train_part_0/*.mp4 without metadata.json",
        ("dfdc_train_part_0/abc.mp4", "dfdc_train_part_0/xyz.mp4"),
        refused="does not say what is real",
    ),
    Form("*.mp4 named as in DFDC", ("aaqaifqrwn.mp4", "bbhtdfuqxq.mp4"), refused="does not say what is real"),
    Form(
        "*.mp4 named as fakes of FaceForensics++",
        ("x/000_003.mp4", "x/010_011.mp4"),
        refused="does not say what is real",
    ),
    Form("real_01.jpg, fake_01.jpg in one folder", ("real_01.jpg", "fake_01.jpg"), refused="does not say what is real"),
    Form("PERSON/ and deepfake_PERSON/", ("Ann/1.jpg", "deepfake_Ann/1.jpg"), refused="does not say what is real"),
    Form(
        "{train,test}/ and PERSON/",
        ("train/real/a.jpg", "test/real/a.jpg", "Ann/1.jpg"),
        refused="splits beside folders",
    ),
    Form("eval/{real,fake}/*.jpg", ("eval/real/a.jpg", "eval/fake/b.jpg"), refused="may be splits"),
    Form("fake/original/*.jpg", ("fake/original/a.jpg", "fake/other/b.jpg"), refused="two ways"),
    Form(
        "{real,fake}/ and fake_extra_set/",
        (*(line.partition(" = ")[0] for line in pair("real", "fake")), "Ann/x/fake_extra_v2b/a.jpg"),
        refused="two ways",
    ),
    Form("most files beside real/", ("real/a.jpg", "Ann/1.jpg", "Bob/2.jpg"), refused="no class or no split"),
)
