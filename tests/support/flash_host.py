"""A host for flash.sh: a made board support package, and tools that only log that they were called."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from firmware_configs.boards import Board, board
from firmware_configs.image import EDGE_TOML, Asked, Packages, write
from tests.support.services import PATIENCE_S

__all__ = ["RELEASES", "Host"]

RELEASES = {"36": "R36 (release), REVISION: 4.4", "38": "R38 (release), REVISION: 4.0"}
_MADE = Packages({"veilsight-engine_1_all.deb": b"engine", "veilsight-units_1_all.deb": b"units"})
# What flash.sh looks for and this machine may not have; NVIDIA's tools, which are faked, would call them.
_LOOKED_FOR = (
    *("sshpass", "abootimg", "dtc", "cpio", "cpp", "xmllint", "xmlstarlet", "mkfs.vfat", "lbzip2", "zstd", "rsync"),
    *("nc", "exportfs", "uuidgen", "cryptsetup", "qemu-aarch64-static", "bzip2"),
)
_LSUSB = """\
#!/bin/bash
echo "lsusb $*" >>{log}
[[ $1 == -d ]] || exit 1
grep "ID ${{2%:}}" {boards}
"""


@dataclass
class Host:
    """One host, in a folder of its own: NVIDIA's files as archives, an image, and what was called.

    Attributes:
        place: The folder; its name may have spaces and quotes.
        row: The board of the image.
        connected: USB ids of the boards in recovery mode.
        release: What NVIDIA's drivers say they are.
    """

    place: Path
    row: Board = field(default_factory=lambda: board("orin-nano"))
    connected: tuple[str, ...] = ("0955:7523",)
    release: str = RELEASES["36"]
    asked: Asked = field(default_factory=Asked)
    keyring: bytes = b""
    config: str = EDGE_TOML

    def __post_init__(self) -> None:
        """Write image, archives and tools."""
        self.place.mkdir(parents=True, exist_ok=True)
        self.image = self.place / "out"
        write(self.row, self.image, self.config, made=_MADE, asked=self.asked, keyring=self.keyring)
        self.tools = self.place / "tools"
        for path, text in (*self._nvidia().items(), *self._tools().items()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        self.connect(*self.connected)
        (self.place / "binfmt").mkdir()
        (self.place / "binfmt/qemu-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu-aarch64-static\n")
        made = self.place / "made"
        subprocess.run(["tar", "cf", self.place / "bsp.tar", "-C", made, "Linux_for_Tegra"], check=True)
        subprocess.run(["tar", "cf", self.place / "rootfs.tar", "-C", made / "rootfs", "."], check=True)

    @property
    def l4t(self) -> Path:
        """Where flash.sh unpacks NVIDIA's files."""
        return self.place / "unpacked/Linux_for_Tegra"

    @property
    def log(self) -> list[str]:
        """What was called, in order."""
        file = self.place / "log"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def flashes(self) -> list[str]:
        """The calls of NVIDIA's flash tool."""
        return [line for line in self.log if line.startswith("l4t_initrd_flash.sh")]

    def connect(self, *ids: str) -> None:
        """These boards are in recovery mode from now on."""
        lines = [f"Bus 001 Device {number:03}: ID {name} NVIDIA Corp. APX\n" for number, name in enumerate(ids, 4)]
        (self.place / "boards").write_text("".join(lines))

    def run(
        self, *more: str, typed: str = "", path: str = "", files: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run flash.sh --run with NVIDIA's files and a work folder of its own; `more` are further options."""
        own = {"PATH": path or f"{self.tools}:/usr/bin:/bin", "BINFMT_MISC": str(self.place / "binfmt")}
        options = ["--run", "--bsp", "bsp.tar", "--rootfs", "rootfs.tar", "--work", "unpacked"] if files else []
        return subprocess.run(
            ["/bin/bash", str(self.image / "flash.sh"), *options, *more],
            cwd=self.place,
            env={**own, **(env or {})},
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def _say(self) -> str:
        return f'#!/bin/bash\necho "${{0##*/}} $*" >>{self._at("log")}\n'

    def _at(self, name: str) -> str:
        return shlex.quote(str(self.place / name))

    def _nvidia(self) -> dict[Path, str]:
        made, log = self.place / "made", self._say()
        l4t, etc = made / "Linux_for_Tegra", made / "rootfs/etc"
        layout = '<partition name="APP_b" id="2">\n<partition name="secondary_gpt" type="secondary_gpt">\n'
        return {
            l4t / "tools/l4t_flash_prerequisites.sh": log,
            l4t / "tools/l4t_create_default_user.sh": log,
            l4t / "apply_binaries.sh": log + f"echo '# {self.release}, GCID: 1' >rootfs/etc/nv_tegra_release\n",
            l4t / (self.row.flash[0]): log,
            l4t / "rootfs/README": "",
            l4t / "bootloader/eks_t234.img": "NVIDIA's sample",
            l4t / (self.row.layout_ab or "none"): layout,
            # As a careless one would be: the same on every device that is made from it.
            etc / "machine-id": "0123456789abcdef0123456789abcdef\n",
            etc / "ssh/ssh_host_ed25519_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
            made / "rootfs/var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
        }

    def _tools(self) -> dict[Path, str]:
        log = self._say()
        found = dict.fromkeys(_LOOKED_FOR, log)
        found["openssl"] = log + f"cat >{self._at('hashed')}\necho '$6$salt$hash'\n"
        found["chpasswd"] = log + f"cat >{self._at('set')}\n"
        found["lsusb"] = _LSUSB.format(log=self._at("log"), boards=self._at("boards"))
        found["sudo"] = '#!/bin/bash\nexec "$@"\n'
        found["mount"] = log
        found["unshare"] = log.replace("$*", "") + 'shift\nexec "$@"\n'
        found["chroot"] = log + f'ls "$1/opt/veilsight/packages" >>{self._at("log")}\n'
        return {self.tools / name: text for name, text in found.items()}

    def own_path(self, without: str) -> str:
        """A PATH that has every tool but one."""
        folder = self.place / f"without-{without}"
        folder.mkdir()
        for tool in self.tools.iterdir():
            if tool.name != without:
                (folder / tool.name).symlink_to(tool)
        for directory in ("/usr/bin", "/bin"):
            for name in os.listdir(directory):
                if name != without and not (folder / name).exists():
                    (folder / name).symlink_to(f"{directory}/{name}")
        return str(folder)
