"""The robot pushing set, from files as TensorFlow writes them: its messages, framed by TensorBoard's writer."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

from lightning_gen.datamodules import RobotPushingDataModule
from lightning_gen.datamodules.records import find_records, floats_of, read_example, read_record
from lightning_gen.errors import DataError, DatasetNotFoundError
from lightning_gen.models import VPN
from tests.digits import quiet_trainer

pytest.importorskip("google_crc32c", reason="checksums; pip install 'lightning_gen[records]'")
FOLDERS = ("push_train", "push_testseen", "push_testnovel")
FRAMES = 22


def example_class() -> Any:
    """`tf.train.Example`, as its definition says."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    repeated, single = 3, 1

    def message(name: str, *fields: tuple[str, int, int, str | int]) -> None:
        found = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            typed = {"type": kind} if isinstance(kind, int) else {"type": 11, "type_name": kind}
            found.field.add(name=field, number=number, label=label, **typed)

    message("BytesList", ("value", 1, repeated, 12))
    message("FloatList", ("value", 1, repeated, 2))
    message("Int64List", ("value", 1, repeated, 3))
    kinds = ("bytes_list", 1, single, ".t.BytesList"), ("float_list", 2, single, ".t.FloatList")
    message("Feature", *kinds, ("int64_list", 3, single, ".t.Int64List"))
    message("Entry", ("key", 1, single, 9), ("value", 2, single, ".t.Feature"))  # What a map is on the wire.
    message("Features", ("feature", 1, repeated, ".t.Entry"))
    message("Example", ("features", 1, single, ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


EXAMPLE = example_class()


def write(path: Path, sequences: list[int], leave_out: str = "") -> None:
    """Sequences of grey frames: frame i of sequence s has the level 10 s + i, and poses 100 s + i and its negative."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for s in sequences:
            example = EXAMPLE()

            def add(name: str, example: Any = example) -> Any:
                return example.features.feature.add(key=name).value

            for i in range(FRAMES):
                jpeg = io.BytesIO()
                Image.new("RGB", (640, 512), (10 * s + i,) * 3).save(jpeg, "jpeg", quality=95)
                if f"move/{i}/image/encoded" != leave_out:
                    add(f"move/{i}/image/encoded").bytes_list.value.append(jpeg.getvalue())
                add(f"move/{i}/endeffector/vec_pitch_yaw").float_list.value.extend(
                    [100 * s + i + k / 8 for k in range(5)]
                )
                add(f"move/{i}/commanded_pose/vec_pitch_yaw").float_list.value.extend([-100 * s - i] * 5)
                add(f"move/{i}/time").int64_list.value.append(10**12 + i)
            writer.write(example.SerializeToString())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("push")
    write(root / "push_train/push_train.tfrecord-00000-of-00002", [1, 2, 3])
    write(root / "push_train/push_train.tfrecord-00001-of-00002", [4, 5])
    write(root / "push_testseen/push_testseen.tfrecord-00000-of-00001", [6])
    write(root / "push_testnovel/push_testnovel.tfrecord-00000-of-00001", [7, 8])
    return root


def levels(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (255 * batch["video"].mean((1, 3, 4))).round()


def test_frames_states_and_actions_are_those_of_the_file(root: Path) -> None:
    data = RobotPushingDataModule(str(root), image_size=16, num_frames=20, val_fraction=0.2)
    data.setup()
    assert [len(data.datasets[split]) for split in ("train", "val", "test")] == [4, 1, 1]
    for split, s in (("val", 5), ("test", 6)):
        batch = data.datasets[split].__getitems__([0])
        assert batch["video"].shape == (1, *data.video_shape) == (1, 3, 20, 16, 16)
        assert (levels(batch) - torch.arange(10 * s, 10 * s + 20)).abs().max() <= 1  # JPEG
        expected = 100 * s + torch.arange(20.0)
        torch.testing.assert_close(batch["state"][0], expected[:, None] + torch.arange(5) / 8)
        torch.testing.assert_close(batch["action"][0], -expected[:, None].expand(20, 5))
        shapes = {key: tuple(batch[key].shape[1:]) for key in ("state", "action")}
        assert shapes == data.condition_shapes
    novel = RobotPushingDataModule(str(root), image_size=16, novel=True)
    novel.setup()
    assert novel.datasets["test"][1]["state"][0, 0] == 800


def test_training_clips_begin_anywhere_in_the_first_twenty_frames(root: Path) -> None:
    data = RobotPushingDataModule(str(root), image_size=8, num_frames=18)
    data.setup()
    torch.manual_seed(0)
    starts = set()
    for _ in range(20):
        clip = data.datasets["train"][0]
        start = int(clip["state"][0, 0]) - 100
        starts.add(start)
        assert clip["state"][:, 0].tolist() == [100 + start + i for i in range(18)]
        assert abs(255 * clip["video"][:, 0].mean() - 10 - start) <= 1
    assert starts == {0, 1, 2}
    assert data.datasets["test"][0]["state"][0, 0] == 600


def test_vpn_is_conditioned_on_states_and_actions(root: Path) -> None:
    data = RobotPushingDataModule(str(root), image_size=8, num_frames=4, batch_size=2)
    model = VPN(data.video_shape, 2, 256, 3, 1, 1, 8, state_dim=5, action_dim=5)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, datamodule=data)
    (figures,) = trainer.test(model, datamodule=data, verbose=False)
    assert 0 < figures["test/nats_per_dim"] < 20
    batch = data.datasets["test"].__getitems__([0])
    before = model.log_prob(batch["video"], batch)
    moved = model.log_prob(batch["video"], {**batch, "action": batch["action"] + 1})
    assert (before != moved).all()
    assert model.sample(1, {key: batch[key] for key in model.condition_keys}).shape == (1, *data.video_shape)


def test_damage_is_found_and_named(root: Path, tmp_path: Path) -> None:
    whole = (root / "push_train/push_train.tfrecord-00000-of-00002").read_bytes()
    path = tmp_path / "push_train/push_train.tfrecord-00000-of-00001"
    path.parent.mkdir()
    path.write_bytes(whole)
    first, second, third = find_records(path)
    assert second.start == first.start + first.length + 16
    assert floats_of(read_example(read_record(third))["move/2/endeffector/vec_pitch_yaw"])[0] == 302

    def damaged(at: int) -> None:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

    damaged(first.start + 1000)
    assert read_record(second)
    with pytest.raises(DataError, match=r"tfrecord-00000-of-00001 is damaged: the record at byte 12 has another check"):
        read_record(first)
    damaged(second.start - 12)
    with pytest.raises(DataError, match=r"00000-of-00001 is damaged at byte [\d,]+: no header"):
        find_records(path)
    path.write_bytes(whole[:-10])
    with pytest.raises(DataError, match="ends within a record"):
        find_records(path)


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"push_train\.tfrecord-00000.*push_train.*brain-robotics-data"):
        RobotPushingDataModule(str(tmp_path)).setup()
    name = "move/3/image/encoded"
    for folder in FOLDERS:
        write(tmp_path / folder / f"{folder}.tfrecord-00000-of-00001", [1], leave_out=name)
    data = RobotPushingDataModule(str(tmp_path), val_fraction=0.0)
    data.setup()
    with pytest.raises(DataError, match=rf"no sequence of 20 frames as published: '{name}'"):
        data.datasets["test"][0]
    for arguments in ({"num_frames": 21}, {"val_fraction": 1.0}):
        with pytest.raises(DataError, match="1 to 20 frames"):
            RobotPushingDataModule(str(root), **arguments)


def test_other_messages_are_refused() -> None:
    unpacked = b"\x12\x05\x0d" + np.float32(2.5).tobytes()  # A list of one float that is not packed.
    assert floats_of(unpacked).tolist() == [2.5]
    for message in (b"\x0b", b"\x0a\x7f", b"\x0a\xff"):
        with pytest.raises(ValueError, match=r"unknown kind|beyond its message"):
            read_example(message)
