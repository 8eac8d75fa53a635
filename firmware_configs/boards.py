"""The boards: one typed row each, with the source of every version. No files, no commands.

Sources: [L] NVIDIA's Jetson Linux developer guide of that release (quick start, flashing support, package manifest).
[M] meta-tegra's recipes and machine files for the same release (versions, module numbers, partition layouts).
[P] power-mode tables that owners read on their devices and quoted. [S] NVIDIA's specification of the module.
Nothing in this table was run on hardware by this project: `run_on_hardware` says so for each board.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.errors import ConfigError

__all__ = ["BOARDS", "Board", "board"]


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
    ),
    Board(
        name="orin-nx",
        module="P3767-0000 (16 GB) on P3768",  # [M]
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
        recovery_usb=("0955:7323", "0955:7423"),  # [L] 16 GB, 8 GB
        dla=2,  # [S] the 8 GB module has one
        ram_gb=16,
        gpu_devices=_NVGPU,
        layout_ab=_ORIN_NVME_AB,
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
        recovery_usb=("0955:7023", "0955:7223"),  # [L] 64 GB, 32 GB
        dla=2,  # [S]
        ram_gb=64,
        gpu_devices=_NVGPU,
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


def board(name: str) -> Board:
    """Return the row called `name`. Raises ConfigError, which lists the rows, where there is none."""
    for row in BOARDS:
        if row.name == name:
            return row
    raise ConfigError(f"--board {name!r} is not a board we know; choose one of {', '.join(row.name for row in BOARDS)}")
