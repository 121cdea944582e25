"""What each figure means, in plain words, for a reader who has never met it."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str, str], ...] = (  # id, term, meaning
    (
        "auc",
        "AUC",
        "Take one fake and one real at random: how often the fake gets the higher score. 1 is perfect, .5 is guessing. "
        "It needs no threshold and says nothing about one.",
    ),
    (
        "ap",
        "Average precision (AP)",
        "Going down from the highest score: how pure the list of fakes is on average. It rises with the share of fakes "
        "in the set, so compare it within one set only.",
    ),
    (
        "eer",
        "Equal error rate (EER)",
        "The error where as many reals are called fake as fakes are missed. 50 % is guessing.",
    ),
    (
        "tpr",
        "TPR at 1 % or 0.1 % FPR",
        "The share of fakes found when at most 1 in 100 (1 in 1,000) reals may be called fake: what is left where "
        "false alarms are dear.",
    ),
    (
        "accuracy",
        "Accuracy, balanced accuracy",
        "The share of samples on the right side of a threshold; balanced: the mean of that share of reals and of "
        "fakes, which a set of mostly fakes cannot flatter.",
    ),
    (
        "apcer",
        "APCER and BPCER",
        "Fakes called real, and reals called fake, at a threshold (ISO/IEC 30107-3). “Worst kind” is the kind of fake "
        "that passes most often.",
    ),
    (
        "brier",
        "Brier score",
        "The mean square of the distance between the probability of fake and the truth: 0 is perfect, .25 is always "
        "saying 50 %.",
    ),
    (
        "ece",
        "Expected calibration error (ECE)",
        "How far what is said lies from how often it is true: .05 means that “90 %” is off by about five points.",
    ),
    (
        "log-loss",
        "Log loss",
        "The surprise at the truth, in nats: 0 is perfect, 0.693 is always saying 50 %. Confident mistakes cost most.",
    ),
    (
        "counts",
        "Judged, without decision",
        "Figures are made of judged samples only. Where no face was found there is no decision: it is counted, and "
        "never scored as 50 %.",
    ),
    (
        "interval",
        "Intervals [low, high]",
        "95 % intervals: people (or clips) were drawn again and again, all frames of one together, and the figure "
        "worked out each time. Two models' intervals may overlap where their paired difference is clear.",
    ),
    (
        "level",
        "Frames and videos",
        "A frame is one picture. A video's score is made of its frames' scores by a rule that is part of the figure's "
        "name. Frame and video figures must not be compared with each other.",
    ),
    (
        "thresholds",
        "Thresholds",
        "Where the line between real and fake is drawn: a probability of one half, or points chosen on validation and "
        "never on the data judged here.",
    ),
    (
        "temperature",
        "Temperature",
        "A number that the scores are divided by, fitted on validation, so that probabilities mean what they say. It "
        "changes no ranking.",
    ),
    (
        "area",
        "Area under a robustness curve",
        "The mean frame AUC from the clean picture to the strongest disturbance.",
    ),
    (
        "agreement",
        "Agreement",
        "The share of samples that two models call the same at a probability of one half.",
    ),
    (
        "p",
        "p",
        "How often a difference at least as large would come up if the two models were equally good (two-sided, "
        "paired).",
    ),
    (
        "macs",
        "MACs, latency, p95",
        "Multiply-accumulates for one picture; the time for one picture (batch 1) on the device named: the median, and "
        "the time that 95 in 100 pictures stay under.",
    ),
)  # fmt: skip
