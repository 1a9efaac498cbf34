"""``repair --sparsity auto``: what is written passes, what is known is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from browser import WIDTHS, check_sound, rows, visible
from models import balanced, files, norm_net, normal, run

from asr_onnx.graph.model_file import load
from asr_onnx.repairing import gate_judge
from asr_onnx.sweeps import automatic

REPAIR = ("repair", "m.onnx", "--calib", "c.npy", "-o", "out.onnx", "--sparsity", "auto",
          "--recipe", "asr", "--holdout", "0.5", "--providers", "cpu")  # fmt: skip
DATA = ("--data", "t.npy", "--labels", "l.npy")
GATE = ("--max-drop", "0.2")


@pytest.fixture
def cases(folder, monkeypatch):
    """``folder`` with 100 samples to calibrate on, and 80 that the dense model labels."""
    rng = np.random.default_rng(7)
    model = norm_net(rng)
    images = {name: normal(rng, count, 3, 8, 8) for name, count in (("c", 100), ("t", 80))}
    model = balanced(model, x=images["t"])
    onnx.save(model, "m.onnx")
    for name, array in images.items():
        np.save(f"{name}.npy", array)
    np.save("l.npy", run(model, x=images["t"])["y"].argmax(1))
    monkeypatch.setattr(gate_judge, "ENOUGH", 40)
    return folder


def report(name="r.json"):
    return json.loads(Path(name).read_text(encoding="utf-8"))


def test_what_is_written_passes_compare_and_the_report_has_the_path_to_it(cases, asr):
    code, out, _ = asr(*REPAIR, *DATA, *GATE, "--report", "r.json")
    assert code == 0
    found = report()
    search = found["search"]
    chosen = search["chosen"]
    assert found["options"]["sparsity"] == chosen
    assert f"sparsity auto took {100 * chosen:.0f} %: " in out
    assert "accuracy: searched on 40 samples, judged on 40 others" in out
    assert asr("compare", "m.onnx", "out.onnx", *DATA, *GATE, "--no-latency", "-q")[0] == 0
    (taken,) = (t for t in search["tried"] if t["removed"] == chosen)
    assert taken["stands"] and taken["judged"]["labelled"] == 40
    drops = [taken[side]["figures"]["--max-drop"] for side in ("searched", "judged")]
    accuracy = found["accuracy"]["repaired"]["top1"]["share"]
    assert max(drops) <= 0.2 and 1 - sum(drops) / 2 == pytest.approx(accuracy)
    for trial in search["tried"]:
        assert trial["passed"] == (trial["searched"]["failures"] == [])
    wanted = (cases / "out.onnx").read_bytes()
    words = list(REPAIR)
    words[words.index("auto")] = str(chosen)
    assert asr(*words, *DATA, *GATE, "--force", "-q") == (0, "", "")
    assert (cases / "out.onnx").read_bytes() == wanted


def test_an_interrupted_search_goes_on_where_it_was(cases, asr, monkeypatch):
    words = (*REPAIR, *DATA, "--work-dir", "work", "--report", "r.json", "--force", "-q",
             "--auto-steps", "5", "--max-drop", "0.4")  # fmt: skip
    assert asr(*words) == (0, "", "")
    whole, wanted = report()["search"], (cases / "out.onnx").read_bytes()
    kept = sorted((cases / "work" / "cells").glob("trial-*"), key=lambda p: p.stat().st_mtime_ns)
    assert len(kept) == len(whole["tried"])
    for path in kept[3:]:
        path.unlink()
    repaired = []
    repair = automatic.repair

    def counted(proto, data, options, **settings):
        repaired.append(options.sparsity)
        return repair(proto, data, options, **settings)

    monkeypatch.setattr(automatic, "repair", counted)
    assert asr(*words) == (0, "", "")
    again = report()["search"]
    assert [t["before"] for t in again["tried"]] == [True] * 3 + [False] * (len(kept) - 3)
    tried = [t["removed"] for t in again["tried"]]
    assert tried == [t["removed"] for t in whole["tried"]]
    assert [s for s in repaired if s not in tried[3:]] == (
        [again["chosen"]] if again["chosen"] in tried[:3] else []
    )
    assert (cases / "out.onnx").read_bytes() == wanted
    # Another gate, another search.
    assert asr(*words, "--max-drop", "0.5") == (0, "", "")
    assert not any(t["before"] for t in report()["search"]["tried"])


def test_what_passes_at_no_sparsity_is_rejected_with_its_figures(cases, asr):
    data = ("--data", "t.npy", "--labels", "wrong.npy")
    np.save("wrong.npy", (np.load("l.npy") + 1) % 5)
    gates = ("--min-accuracy", "0.9", "--min-cosine", "0.1")
    code, out, err = asr(*REPAIR, *data, *gates, "--report", "r.json", "--keep-rejected")
    assert code == 3
    assert "sparsity auto found none that passes: 1 % fails" in out
    assert "--min-accuracy 0.9" in err and "kept as 'out.rejected.onnx'" in err
    found = report()
    assert found["search"]["chosen"] is None and found["output"] is None
    assert [f["gate"] for f in found["failures"]] == ["--min-accuracy"]
    assert found["options"]["sparsity"] == 0.01
    assert not (cases / "out.onnx").exists()


def test_what_fails_the_judgement_alone_is_not_written(cases, asr, monkeypatch):
    """Both halves together would pass."""
    look = gate_judge.GateJudge._look

    def strict(self, measured, hits, parts):
        found = look(self, measured, hits, parts)
        if len(parts) == 1 and parts[0] is self._parts[1]:
            failure = gate_judge.Failure(self.name, "--max-drop", "drop is above")
            return gate_judge.replace(found, failures=(failure,))
        return found

    monkeypatch.setattr(gate_judge.GateJudge, "_look", strict)
    code, out, err = asr(*REPAIR, *DATA, "--max-drop", "1", "--auto-steps", "3")
    assert code == 3
    assert "drop is above, on the samples kept for the judgement" in err
    assert "failed the judgement" in out and not (cases / "out.onnx").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "--sparsity auto needs a quality gate to tell what is good enough: give --max-drop"),
        (("--max-drop", "0.1"), "--max-drop needs labelled data: give --data"),
        ((*DATA, *GATE, "--pattern", "127:128"), "pattern 127:128 leaves less than 1 % zeros"),
        ((*DATA, *GATE, "--dense", "m.onnx"), "--dense takes the mask from MODEL: leave out"),
        ((*DATA, *GATE, "--work-dir", "images"), "other things than a sweep in it: give another "
         "--work-dir"),
        ((*DATA, *GATE, "--work-dir", "c.npy"), "'c.npy' is no folder"),
        ((*DATA, *GATE, "--sparsity", "0.5", "--auto-steps", "3"), "--auto-steps is about "
         "--sparsity auto or --macs auto: give that, too"),
        ((*DATA, *GATE, "--sparsity", "0.5", "--work-dir", "w"), "--work-dir is about"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_refused_before_any_work(cases, asr, words, message):
    before = files(cases)
    code, out, err = asr(*REPAIR, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert files(cases) == before


def test_other_commands_do_not_take_auto(cases, asr):
    code, _, err = asr("prune", "m.onnx", "--sparsity", "auto")
    assert code == 2 and "sparsity 'auto' is not a number" in err


def test_gates_of_outputs_need_no_labels(cases, asr):
    code, out, _ = asr(*REPAIR, "--min-cosine", "0.9", "--report", "r.json")
    assert code == 0
    assert "outputs: searched on 32 samples, judged on 18 others" in out
    found = report()
    assert found["accuracy"] is None
    assert found["outputs"]["repaired"]["y"]["cosine"] >= 0.9
    assert load("out.onnx").proto


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_shows_what_was_tried(cases, asr, show, width):
    words = ("--report", "r.html", "--report", "r.json", "-q")
    assert asr(*REPAIR, *DATA, *GATE, *words) == (0, "", "")
    page = show(cases / "r.html", width)
    check_sound(page)
    search, text = report()["search"], visible(page)
    assert "How the sparsity was found" in text
    assert f"sparsity auto took {100 * search['chosen']:.0f} %" in text
    found = rows(page, "search")
    tried = sorted(search["tried"], key=lambda t: t["removed"])
    assert [row[0] for row in found] == [f"{100 * t['removed']:.0f} %" for t in tried]
    taken = [row[0] for row in found if any("taken" in cell for cell in row)]
    assert taken == [f"{100 * search['chosen']:.0f} %"]


def test_the_least_work_that_passes_is_written_and_told(cases, asr):
    gate = ("--max-drop", "0.6")
    words = [w for w in REPAIR if w not in ("--sparsity", "auto")]
    words += ["--pattern", "channel", "--macs", "auto", "--channel-multiple", "1", "--force"]
    words += [*DATA, *gate, "--work-dir", "work"]
    code, out, _ = asr(*words, "--report", "r.json")
    assert code == 0
    search, options = report()["search"], report()["options"]
    assert search["amount"] == "macs" and options["macs"] == pytest.approx(1 - search["chosen"])
    assert f"macs auto took {100 * options['macs']:.0f} %: " in out
    assert asr("compare", "m.onnx", "out.onnx", *DATA, *gate, "--no-latency", "-q")[0] == 0
    code, out, _ = asr(*words)
    assert code == 0 and f"{len(search['tried'])} of them before" in out
    code, _, err = asr(*words, "--sparsity", "auto")
    assert code == 2 and "exclude each other" in err
