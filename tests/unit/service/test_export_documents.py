"""What MLflow is told of a study comes back as it was."""

from service.export.documents import parse_recorded, parse_tuned, recorded_params, tuned_params


def test_recorded_rates_and_tuned_values_come_back_among_other_parameters() -> None:
    recorded = {"adamw-mup": -4.62, "muon-mup": None}
    tuned = {"adamw-mup": {"weight_decay": 0.0123456, "readout_lr_factor": 0.5}}
    params = {"batch": "16", **recorded_params(recorded), **tuned_params(tuned)}
    assert parse_recorded(params) == recorded
    assert parse_tuned(params) == tuned
    assert parse_tuned(recorded_params(recorded)) == {}
