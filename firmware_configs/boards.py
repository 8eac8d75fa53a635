"""The boards: one typed row each, with the source of every version. No files, no commands.

A row is of the board's first module and storage; MODULES and STORAGES have what another one changes (docs/boards.md).

Sources: [L] NVIDIA's Jetson Linux developer guide of that release (quick start, flashing support, package manifest).
[M] meta-tegra's recipes and machine files for the same release (versions, module numbers, partition layouts).
[P] power-mode tables that owners read on their devices and quoted. [S] NVIDIA's specification of the module.
[R] README_initrd_flash.txt, which comes with NVIDIA's board support package.
Nothing in this table was run on hardware by this project: `run_on_hardware` says so for each board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from wire.errors import ConfigError

__all__ = ["BOARDS", "MODULES", "STORAGES", "Board", "Module", "Storage", "board"]


@dataclass(frozen=True, slots=True)
class Board:
    """One board: what NVIDIA's software for it is called, and how it is flashed."""

    name: str
    module: str  # the module's and the carrier's part numbers
    flash_config: str  # NAME of NAME.conf in Linux_for_Tegra
    jetpack: str
    l4t: str
    tensorrt: str
    cuda: str
    compute_capability: str
    ubuntu: str
    python: str
    power_mode: str  # by name: the numbers differ between configurations of one board
    storage: str  # where the root file system goes
    flash: tuple[str, ...]  # l4t_initrd_flash.sh, relative to Linux_for_Tegra, and its arguments
    apply_binaries: tuple[str, ...]  # arguments of apply_binaries.sh
    recovery_usb: tuple[str, ...]  # USB ids in recovery mode
    dla: int
    ram_gb: int
    gpu_devices: tuple[str, ...]  # for DeviceAllow=
    layout_ab: str = ""  # with two root file systems, in place of the one that `flash` names; "": none is known
    layout_encrypted: str = ""  # with an encrypted one; "internal": the module's own; "": none is known
    eks: str = ""  # where the flashing tools look for the encrypted key blob of OP-TEE
    run_on_hardware: bool = False

    @property
    def release(self) -> tuple[str, str]:
        """(major, revision) as /etc/nv_tegra_release writes them: 36.4.4 is R36, revision 4.4."""
        major, _, revision = self.l4t.partition(".")
        return major, revision


# Device nodes of the nvgpu driver on L4T 36 (its uapi headers); the character device group carries the GPU's name.
_NVGPU = (
    "char-nvhost*",
    "char-*.gpu",
    "char-*.ga10b",
    "char-host1x*",
    "char-drm",
    "/dev/nvmap",
    "/dev/host1x-fence",
    *(
        f"/dev/nvgpu/igpu0/{node}"
        for node in ("as", "channel", "ctrl", "ctxsw", "nvsched", "power", "prof", "prof-ctx", "sched", "tsg")
    ),
)
# Thor has the desktop driver ("openrm") beside Tegra's memory allocator.
_OPENRM = ("char-nvidia*", "char-host1x*", "char-drm", "/dev/nvmap", "/dev/host1x-fence")

# [M, and meta-mender-tegra's README] 36.4: APP and APP_b are partitions 1 and 2 of the NVMe.
_ORIN_NVME_AB = "tools/kernel_flash/flash_l4t_t234_nvme_rootfs_ab.xml"
_ORIN_NVME_ENCRYPTED = "tools/kernel_flash/flash_l4t_t234_nvme_rootfs_enc.xml"  # [L]
_ORIN_EKS = "bootloader/eks_t234.img"  # [L]
_INITRD_FLASH = "tools/kernel_flash/l4t_initrd_flash.sh"
# [L, M] 36.4: boot firmware in the module's QSPI, root file system on the carrier's NVMe.
_ORIN_NVME = (
    _INITRD_FLASH,
    "--external-device",
    "nvme0n1p1",
    "-c",
    "tools/kernel_flash/flash_l4t_t234_nvme.xml",
    "-p",
    "-c bootloader/generic/cfg/flash_t234_qspi.xml",
    "--showlogs",
    "--network",
    "usb0",
)

# JetPack 6.2.1 = L4T 36.4.4 [L, M]; TensorRT 10.3.0.30 and CUDA 12.6 [M]; Ubuntu 22.04 with Python 3.10 [L].
# JetPack 7.1 = L4T 38.4.0 with CUDA 13.0 [L]; TensorRT 10.13.3.9 [M]; Ubuntu 24.04 with Python 3.12 [L].
BOARDS: tuple[Board, ...] = (
    Board(
        name="orin-nano",
        module="P3767-0003/0005 (8 GB) on P3768",  # [M]
        flash_config="jetson-orin-nano-devkit",  # [L]
        jetpack="6.2.1",
        l4t="36.4.4",
        tensorrt="10.3.0.30",
        cuda="12.6",
        compute_capability="8.7",
        ubuntu="22.04",
        python="3.10",
        power_mode="15W",  # [P] id 0 in the plain and in the super table
        storage="nvme0n1p1",
        flash=(*_ORIN_NVME, "jetson-orin-nano-devkit", "internal"),
        apply_binaries=(),
        recovery_usb=("0955:7523",),  # [L]
        dla=0,  # [S]
        ram_gb=8,
        gpu_devices=_NVGPU,
        layout_ab=_ORIN_NVME_AB,
        layout_encrypted=_ORIN_NVME_ENCRYPTED,
        eks=_ORIN_EKS,
    ),
    Board(
        name="orin-nx",
        module="P3767-0000 (16 GB) on P3768",  # [M, R]
        flash_config="jetson-orin-nano-devkit",  # [L] the carrier's configuration serves both modules
        jetpack="6.2.1",
        l4t="36.4.4",
        tensorrt="10.3.0.30",
        cuda="12.6",
        compute_capability="8.7",
        ubuntu="22.04",
        python="3.10",
        power_mode="15W",  # [P] id 2, the default; id 3 (25W) holds the GPU at 408 MHz
        storage="nvme0n1p1",
        flash=(*_ORIN_NVME, "jetson-orin-nano-devkit", "internal"),
        apply_binaries=(),
        recovery_usb=("0955:7323",),  # [L]
        dla=2,  # [S]
        ram_gb=16,
        gpu_devices=_NVGPU,
        layout_ab=_ORIN_NVME_AB,
        layout_encrypted=_ORIN_NVME_ENCRYPTED,
        eks=_ORIN_EKS,
    ),
    Board(
        name="agx-orin",
        module="P3701-0005 (64 GB) on P3737",  # [M]
        flash_config="jetson-agx-orin-devkit",  # [L]
        jetpack="6.2.1",
        l4t="36.4.4",
        tensorrt="10.3.0.30",
        cuda="12.6",
        compute_capability="8.7",
        ubuntu="22.04",
        python="3.10",
        power_mode="MODE_30W",  # [P] id 2, the default
        storage="mmcblk0p1",  # [M] the module's own eMMC
        flash=(_INITRD_FLASH, "--showlogs", "--network", "usb0", "jetson-agx-orin-devkit", "internal"),
        apply_binaries=(),
        recovery_usb=("0955:7023",),  # [L]
        dla=2,  # [S]
        ram_gb=64,
        gpu_devices=_NVGPU,
        layout_encrypted="internal",  # [L, R]
        eks=_ORIN_EKS,
    ),
    Board(
        name="thor",
        module="P3834-0008 (T5000) on P4071",  # [M]
        flash_config="jetson-agx-thor-devkit",  # [L]
        jetpack="7.1",
        l4t="38.4.0",
        tensorrt="10.13.3.9",
        cuda="13.0",
        compute_capability="11.0",
        ubuntu="24.04",
        python="3.12",
        power_mode="120W",  # [P] id 1, the default
        storage="nvme0n1p1",  # [M]
        flash=("l4t_initrd_flash.sh", "jetson-agx-thor-devkit", "internal"),  # [L]
        apply_binaries=("--openrm",),  # [L] without it the GPU's firmware does not start
        recovery_usb=("0955:7026",),  # [L]
        dla=0,  # [S]
        ram_gb=128,
        gpu_devices=_OPENRM,
    ),
)


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a board, and what it changes in the board's row."""

    board: str
    name: str
    part: str  # for `Board.module`
    recovery_usb: tuple[str, ...]
    ram_gb: int
    power_mode: str
    dla: int


MODULES: tuple[Module, ...] = (
    Module("orin-nano", "8gb", "P3767-0003/0005 (8 GB) on P3768", ("0955:7523",), 8, "15W", 0),  # the row above
    # [L] USB id; [R] part; [L] the power modes of its table: 10W (the default), 7W_AI, 7W_CPU; [S] no DLA
    Module("orin-nano", "4gb", "P3767-0004 (4 GB) on P3768", ("0955:7623",), 4, "10W", 0),
    Module("orin-nx", "16gb", "P3767-0000 (16 GB) on P3768", ("0955:7323",), 16, "15W", 2),
    # [L] USB id, power modes (MAXN, 10W, 15W, 20W); [R] part; [S] one DLA
    Module("orin-nx", "8gb", "P3767-0001 (8 GB) on P3768", ("0955:7423",), 8, "15W", 1),
    Module("agx-orin", "64gb", "P3701-0005 (64 GB) on P3737", ("0955:7023",), 64, "MODE_30W", 2),
    # [L] P3701-0004 is 7223; the first developer kit's P3701-0000 has 32 GB too and the 64 GB module's id.
    # [P] MAXN, MODE_15W, MODE_30W, MODE_40W
    Module("agx-orin", "32gb", "P3701-0004/0000 (32 GB) on P3737", ("0955:7223", "0955:7023"), 32, "MODE_30W", 2),
    Module("thor", "t5000", "P3834-0008 (T5000) on P4071", ("0955:7026",), 128, "120W", 0),
)
"""What `--module` chooses; the first one of a board is its row."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a board's root file system goes, and what that changes in its row."""

    board: str
    name: str
    device: str  # for `Board.storage`
    flash: tuple[str, ...]
    layout_ab: str = ""
    layout_encrypted: str = ""


def _first(name: str) -> Storage:
    row = next(row for row in BOARDS if row.name == name)
    kind = "emmc" if row.storage.startswith("mmcblk") else "nvme"
    return Storage(name, kind, row.storage, row.flash, row.layout_ab, row.layout_encrypted)


# [L, R] 36.4: with "internal" the tool would fill the eMMC as well; "external" leaves the boot firmware alone in the
# module. The layouts are those of all T234 modules.
_AGX_NVME = (
    _INITRD_FLASH,
    *("--external-device", "nvme0n1p1", "-c", "tools/kernel_flash/flash_l4t_t234_nvme.xml"),
    *("--showlogs", "--network", "usb0", "jetson-agx-orin-devkit", "external"),
)
STORAGES: tuple[Storage, ...] = (
    *(_first(row.name) for row in BOARDS),
    Storage("agx-orin", "nvme", "nvme0n1p1", _AGX_NVME, _ORIN_NVME_AB, _ORIN_NVME_ENCRYPTED),
)
"""What `--storage` chooses; the first one of a board is its row."""


_Row = TypeVar("_Row", Module, Storage)
_Chosen = TypeVar("_Chosen")


def board(name: str, module: str = "", storage: str = "") -> Board:
    """Return a board's row, as its module and its storage change it.

    Args:
        name: One of BOARDS.
        module: One of its MODULES; "": the first.
        storage: One of its STORAGES; "": the first.

    Raises:
        ConfigError: There is none of that name; the words list those that are.
    """
    row = _choose("board", name, {row.name: row for row in BOARDS}, "a board we know")
    if module:
        one = _choose("module", module, _named(MODULES, name), f"a module of {name}")
        row = replace(
            row,
            module=one.part,
            recovery_usb=one.recovery_usb,
            ram_gb=one.ram_gb,
            power_mode=one.power_mode,
            dla=one.dla,
        )
    if storage:
        place = _choose("storage", storage, _named(STORAGES, name), f"a storage of {name}")
        row = replace(
            row,
            storage=place.device,
            flash=place.flash,
            layout_ab=place.layout_ab,
            layout_encrypted=place.layout_encrypted,
        )
    return row


def _named(rows: Sequence[_Row], name: str) -> dict[str, _Row]:
    return {row.name: row for row in rows if row.board == name}


def _choose(option: str, name: str, rows: dict[str, _Chosen], what: str) -> _Chosen:
    if name not in rows:
        raise ConfigError(f"--{option} {name!r} is not {what}; choose one of {', '.join(rows)}")
    return rows[name]
