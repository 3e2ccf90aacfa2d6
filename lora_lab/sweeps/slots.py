"""What groups are trained on: the cores or accelerators of this machine, or of a cluster."""

from dataclasses import dataclass

from joblib import cpu_count

from lora_lab.training import pick_device


@dataclass(frozen=True, slots=True)
class Slots:
    """So many places to train on at once.

    Attributes:
        count: CPU cores or accelerators, of all machines together.
        on_cpu: whether they are cores.
        cores: of one machine.
    """

    count: int
    on_cpu: bool
    cores: int

    @classmethod
    def here(cls, device: str | None) -> "Slots":
        """Every core of this machine that this process may use, or its accelerator.

        Raises:
            SpecError: no such device.
        """
        on_cpu, cores = pick_device(device).type == "cpu", cpu_count()
        return cls(cores if on_cpu else 1, on_cpu, cores)

    def threads(self, wanted: int | None) -> int:
        """CPU threads of one group: what is wanted, else every core of a machine; one is enough beside an accelerator."""
        return min(wanted or self.cores, self.cores) if self.on_cpu else 1

    def at_once(self, threads: int) -> int:
        """Groups of so many threads that find room, one at least."""
        return max(1, self.count // threads)

    def beside(self, workers: int, threads: int) -> int:
        """Of so many workers of so many threads, those that share the memory of one machine, or of one accelerator."""
        return max(1, min(workers, self.cores // threads)) if self.on_cpu else 1
