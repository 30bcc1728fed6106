"""The encoder's effort: when encoding gets cheaper, and when packets carry copies."""

from __future__ import annotations

from rtc.codecs.encoder_policy import EncoderPolicy, Settings


class Clock:
    """A call's clock of 20 ms that comes as late as it is told."""

    def __init__(self, quality: EncoderPolicy) -> None:
        self.quality = quality
        self.due = 1000.0

    def run(self, ticks: int, late_ms: float = 0.0) -> None:
        for _ in range(ticks):
            self.quality.tick(self.due + late_ms / 1000)
            self.due += 0.02


def running() -> tuple[EncoderPolicy, Clock]:
    quality = EncoderPolicy(copies=True)
    clock = Clock(quality)
    clock.run(50)
    return quality, clock


def test_a_clock_on_time_changes_nothing() -> None:
    quality, clock = running()
    clock.run(5000, late_ms=3)
    assert (quality.on_time, quality.late) == (5050, 0)
    clock.run(2, late_ms=9)  # after so long, 3 ms late is on time
    assert (quality.on_time, quality.late) == (5050, 2)
    assert quality.settings == Settings()


def test_a_clock_that_comes_late_makes_encoding_cheaper_step_by_step() -> None:
    quality, clock = running()
    seen = [quality.settings.bitrate_bps]
    for _ in range(10):
        clock.run(3, late_ms=12)
        seen.append(quality.settings.bitrate_bps)
    assert seen[:3] == [32000, 28000, 24000]
    assert set(seen[3:]) == {24000}


def test_one_stall_is_no_overload() -> None:
    quality, clock = running()
    clock.run(2, late_ms=18)
    clock.run(100)
    assert quality.settings == Settings()


def test_it_comes_back_slowly() -> None:
    quality, clock = running()
    clock.run(30, late_ms=12)
    assert quality.settings.bitrate_bps == 24000
    clock.run(490)
    assert quality.settings.bitrate_bps == 24000
    clock.run(20)
    assert quality.settings.bitrate_bps == 28000
    clock.run(1000)
    assert quality.settings == Settings()


def test_a_pause_of_the_whole_process_is_a_new_beginning() -> None:
    quality, clock = running()
    clock.due += 5
    clock.run(100)
    assert quality.settings == Settings()


def test_a_clock_that_has_moved_is_not_late_for_ever() -> None:
    quality, clock = running()
    clock.run(2500, late_ms=15)
    assert quality.settings == Settings()


def test_loss_brings_copies_and_its_end_takes_them_away() -> None:
    quality = EncoderPolicy(copies=True)
    quality.reported(0.01)
    assert quality.settings.loss_percent == 0
    quality.reported(0.10)
    assert quality.settings == Settings(32000, 1, 10)
    quality.reported(0.0)
    assert quality.settings.loss_percent == 9
    for _ in range(40):
        quality.reported(0.0)
    assert quality.settings == Settings()


def test_a_caller_that_cannot_use_copies_gets_none() -> None:
    quality = EncoderPolicy(copies=False)
    quality.reported(0.5)
    assert quality.settings == Settings()


def test_what_is_expected_to_be_lost_is_bounded() -> None:
    quality = EncoderPolicy(copies=True)
    quality.reported(1.0)
    assert quality.settings.loss_percent == 30
