"""What `torch.save` writes is read as `torch.load` reads it; what asks for more memory than it has bytes is refused."""

import io
import resource
import struct
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from faults import in_child

from mnist_helpers.environment import seeded
from mnist_helpers.models import improved_network
from mnist_helpers.models.archive import LARGEST_PICKLE, ArchiveError, read_archive


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def rewritten(content, change=lambda name, data: data, compression=zipfile.ZIP_STORED):
    """Return an archive with each part as `change` returns it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(buffer, "w", compression) as after:
        for name in before.namelist():
            after.writestr(name, change(name.partition("/")[2], before.read(name)))
    return buffer.getvalue()


def archive_of(pickled):
    """Return an archive with this pickle and a storage of one float32."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("archive/data/0", bytes(4))
    return buffer.getvalue()


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


def test_what_torch_saves_is_read_as_torch_reads_it():
    with seeded(0):
        model = improved_network((8, 4)).to(memory_format=torch.channels_last)
        model(torch.rand(5, 1, 28, 28)).sum().backward()
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    schedules = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 5]),
        torch.optim.lr_scheduler.ConstantLR(optimizer),
    ]
    state = model.state_dict()
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)
    numbers = torch.arange(24.0).reshape(2, 3, 4)
    values = [
        state,
        optimizer.state_dict(),
        [schedule.state_dict() for schedule in schedules],
        {str(kind): numbers.to(kind) for kind in (*kinds, torch.uint8, torch.bool)},
        {"view": numbers[:, 1:, ::2], "empty": numbers[:0], "one": torch.tensor(3), "conv": torch.zeros(2, 3, 4, 5).mT},
        {"tied": state["1.weight"], "twice": state["1.weight"]},
        {"epochs": [{"loss": 0.1, "rate": None}], "": (1, "ü", -(2**70), True, 70_000, 300), 3: Counter("aab")},
        OrderedDict(a=[]),
    ]
    for value in values:
        content = saved(value)
        assert_same(read_archive(content), torch.load(io.BytesIO(content), weights_only=True))
    assert read_archive(saved(state))._metadata == state._metadata
    parameters = dict(model.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in read_archive(saved(parameters)).items())


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
ENTRIES = b"".join(b"M" + struct.pack("<H", number) + b"K\x01" for number in range(4000))
GREEDY = {
    "a length": b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    "copies of a dict": b"ccollections\nOrderedDict\nq\x00}("
    + ENTRIES
    + b"uq\x01]("
    + b"h\x00h\x01\x85R" * 4000
    + b"e",
    "tensors of many sides": REBUILD + b"(" + STORAGE + b"K\x00(" + b"K\x01" * 9000 + b"tq\x02h\x02\x89}tq\x01]("
    b"" + b"h\x00h\x01R" * 4000 + b"e",
    "a tensor of any size": REBUILD + b"(" + STORAGE + b"K\x00J\x00\x00\x00\x40\x85K\x00\x85\x89}tR",
    "a tensor past its storage": REBUILD + b"(" + STORAGE + b"J\xff\x00\x00\x00K\x01\x85K\x01\x85\x89}tR",
    "a class": b"ctorch.nn\nLinear\nJ\xff\xff\xff\x00J\xff\xff\xff\x00\x86R",
    "a storage": b"ctorch.storage\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R",
    "a sparse tensor": b"ctorch._utils\n_rebuild_sparse_tensor\n)R",
    "sets": b"](" + b"\x8f" * 100 + b"e",
    "keys too deep to hash": b"})" + b"\x85" * 100_000 + b"K\x01s",
    "nothing": b"",
    "more than is there": b"X\xff\xff\xff\x7fabc",
}


def in_little_memory(work):
    """Return the outcome of `work()` in a process that may have 100 MB more than this one."""

    def limited():
        with open("/proc/self/statm") as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + 100_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return work()

    return in_child(limited)


def refusal(content):
    with pytest.raises(ArchiveError) as caught:
        read_archive(content)
    return str(caught.value)


def test_a_pickle_cannot_ask_for_memory_that_it_does_not_have():
    messages = in_little_memory(lambda: {name: refusal(archive_of(pickled)) for name, pickled in GREEDY.items()})
    assert isinstance(messages, dict), messages
    assert all(len(message) < 250 and len(message.splitlines()) == 1 for message in messages.values())
    assert not [message for message in messages.values() if "MemoryError" in message], messages
    many = {b"Counter": b"h\x00h\x01\x85R", b"OrderedDict": b"h\x00)R"}  # may be there any number of times
    for name, call in many.items():
        names = b"ccollections\n" + name + b"\nq\x00}(" + ENTRIES + b"uq\x01]("
        content = archive_of(names + call * 10_000 + b"e")
        n = in_little_memory(lambda content=content: len(read_archive(content)))
        assert isinstance(n, int) and n == 10_000, n


def test_an_archive_cannot_ask_for_memory_that_it_does_not_have():
    zeros = saved({"weight": torch.zeros(30_000_000)})
    deflated = rewritten(zeros, compression=zipfile.ZIP_DEFLATED)
    del zeros
    assert len(deflated) < 300_000
    assert in_little_memory(lambda: refusal(deflated)) == "it is compressed, as torch.save never does"
    tied = torch.zeros(10_000)
    assert refusal(saved({str(number): tied.view(100, 100) for number in range(9)})).startswith(
        "its tensors are larger"
    )
    assert refusal(saved({"repeated": torch.zeros(1).expand(3)})).startswith("its tensors are larger")
    assert len(read_archive(saved(dict.fromkeys("abc", tied)))) == 3, "one tensor under several names"
    huge = archive_of(b"X" + struct.pack("<I", LARGEST_PICKLE) + b"a" * LARGEST_PICKLE)
    assert "lists names and plain values of more than 1,000,000 bytes" in refusal(huge)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(20_001):
            archive.writestr(f"a/{number}", b"")
    assert "more than 20,000 parts" in refusal(buffer.getvalue())


def test_parts_that_lie_over_one_another_are_refused():
    content = saved({"a": torch.zeros(1000), "b": torch.zeros(1000)})
    start = content.rindex(b"PK\x05\x06")
    n, size, offset = struct.unpack("<HII", content[start + 10 : start + 20])
    directory = content[offset : offset + size]
    end = content[start : start + 8] + struct.pack("<HHII", 9 * n, 9 * n, 9 * size, offset) + b"\0\0"
    assert refusal(content[:offset] + 9 * directory + end) == "its parts lie over one another"


def test_what_is_damaged_or_something_else_is_refused():
    good = saved({"a": torch.zeros(3)})
    assert "damaged" in refusal(good.replace(bytes(12), bytes(11) + b"\1")), "it has a checksum"
    legacy = saved({"a": torch.zeros(3)}, _use_new_zipfile_serialization=False)
    for content in (b"", b"PK\x03\x04", b"[" * 1000, legacy):
        assert "not written by torch.save of PyTorch 1.6 or later" in refusal(content)
    other = rewritten(good, lambda name, data: b"big" if name == "byteorder" else data)
    assert "other byte order" in refusal(other)
    whole = saved(torch.nn.Identity())
    assert "more than tensors and plain values: 'torch.nn.modules.linear Identity'" in refusal(whole)
