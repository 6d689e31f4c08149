import json

import pytest

from refinenet_jax import files


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a" / "eval.json"
    files.write_json(path, {"mean_iou": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"mean_iou": float("nan")})
    assert json.loads(path.read_text()) == {"mean_iou": 0.5}
    assert [p.name for p in path.parent.iterdir()] == ["eval.json"]
