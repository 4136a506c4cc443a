"""What listeners are asked: the five questions of the paper's table (spatial impression to realism), each on
the five-point scale of ITU-T P.800 (absolute category rating), or as a choice between two sounds."""

from __future__ import annotations

from dataclasses import dataclass

SCALE = {5: "excellent", 4: "good", 3: "fair", 2: "poor", 1: "bad"}
CHOICES = ("first", "second", "same")


@dataclass(frozen=True)
class Question:
    """needs_picture: asked only where the clip has a video."""

    name: str
    title: str
    text: str
    needs_picture: bool


QUESTIONS = (
    Question(
        "spatial_impression",
        "Spatial impression",
        "Do the sounds come from places around you, as they would in a real room or outdoors?",
        False,
    ),
    Question(
        "spatial_consistency",
        "Spatial consistency",
        "Does each sound come from where its source is in the picture, and move as it moves?",
        True,
    ),
    Question(
        "temporal_alignment",
        "Temporal alignment",
        "Do the sounds happen when the events in the picture happen?",
        True,
    ),
    Question(
        "semantic_alignment",
        "Semantic alignment",
        "Are these the sounds that the things in the picture would make?",
        True,
    ),
    Question(
        "realism",
        "Realism",
        "Does it sound like a recording of real things, clean and natural?",
        False,
    ),
)
NAMES = tuple(question.name for question in QUESTIONS)


def asked(has_picture: bool) -> tuple[Question, ...]:
    return tuple(q for q in QUESTIONS if has_picture or not q.needs_picture)
