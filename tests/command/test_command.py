"""What a newcomer reads first."""

import logging

from pirl_jax.command import shorten_import_warnings


def test_the_report_on_a_missing_ffmpeg_is_one_line(caplog):
    shorten_import_warnings()
    report = "No codec.\nTraceback 5 % …\n'torchcodec' cannot be loaded (see the error above). Ok."
    for _ in range(2):
        logging.getLogger("lerobot.utils.import_utils").warning(report)
    assert [record.getMessage() for record in caplog.records] == ["'torchcodec' cannot be loaded. Ok."]
