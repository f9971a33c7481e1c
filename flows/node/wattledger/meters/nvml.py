"""The NVIDIA driver: every question that Wattledger asks NVML. The only module that imports pynvml.

The module `pynvml` comes from the distribution nvidia-ml-py. What a GPU cannot answer is asked once,
then null with its reason (`Gpu.unsupported`), never zero. Meanings: docs/method.md, "What NVML says".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml

from wattledger.readings import QUANTITIES, Gpu, Instance, Values

_INSTANT, _AVERAGE = "power_instant", "power_average"
_FIELDS = {
    "energy_mj": pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
    _INSTANT: pynvml.NVML_FI_DEV_POWER_INSTANT,
    _AVERAGE: pynvml.NVML_FI_DEV_POWER_AVERAGE,
    "mem_temp_c": pynvml.NVML_FI_DEV_MEMORY_TEMP,
    "power_limit_mw": pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT,
}
"""What one call for field values can answer. Scope 0 is the GPU itself: other scopes (the module
of a GH200, say) include the CPU and are other quantities."""

_UNION = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Member of the value union by its NVML value type."""

_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
_GONE = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
)
_NEVER = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_DEPRECATED,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)
"""Errors that stay the same however often one asks."""


class DriverMissing(Exception):
    """No NVIDIA driver answers on this machine."""


class DriverGone(Exception):
    """The driver answered before and no longer does: it is being reloaded."""


class GpuLost(Exception):
    """The GPU fell off the bus or waits for a reset."""


@dataclass
class NvmlGpu(Gpu):
    """A GPU that the driver reads."""

    failing: dict[str, str] = field(default_factory=dict)
    """Quantity -> why it was null in the last reading, though it is supported."""
    handle: Any = None
    _field_names: tuple[str, ...] = ()
    """What the call for field values answers."""
    _functions: tuple[Callable[[Any], int] | None, ...] = ()
    """In the order of QUANTITIES: the function that answers; None where field values do, or nothing."""

    @property
    def probed(self) -> bool:
        """Whether it has been asked what it can answer."""
        return bool(self._functions)

    def probe(self) -> None:
        """Ask every quantity once and remember which way it is answered."""
        self.unsupported.clear()
        fields = self._read_fields(tuple(_FIELDS))
        self._field_names = tuple(name for name, (_, error) in fields.items() if error is None)
        if _INSTANT in self._field_names:
            self.power_source = "instant"
        elif _AVERAGE in self._field_names:
            self.power_source = "average_1s"
        else:
            # NVML does not say which: an average over 1 s or the moment's, by the GPU's generation.
            self.power_source = "unknown"
        if _AVERAGE not in self._field_names:
            self.unsupported["power_average_mw"] = _reason(fields[_AVERAGE][1])
        self._functions = tuple(self._probe_function(name) for name in QUANTITIES)

    def _probe_function(self, quantity: str) -> Callable[[Any], int] | None:
        """The function that answers; None where field values do, or nothing ever will."""
        function = self._find_function(quantity)
        if function is None:
            return None
        try:
            function(self.handle)
        except pynvml.NVMLError as error:
            _raise_if_lost(error)
            self.unsupported[quantity] = _reason(error.value)
            if error.value in _NEVER:
                return None
        return function

    def _find_function(self, quantity: str) -> Callable[[Any], int] | None:
        if quantity == "power_mw" and self.power_source != "unknown":
            return None
        if quantity in self._field_names:
            return None
        return _FUNCTIONS.get(quantity)

    def _read_fields(self, names: tuple[str, ...]) -> dict[str, tuple[int | None, int | None]]:
        """Name -> (value, None), or (None, NVML's error): all in one call to the driver."""
        if not names:
            return {}
        try:
            values = pynvml.nvmlDeviceGetFieldValues(self.handle, [_FIELDS[n] for n in names])
        except pynvml.NVMLError as error:
            _raise_if_lost(error)
            return dict.fromkeys(names, (None, error.value))
        return {
            name: (None, value.nvmlReturn)
            if value.nvmlReturn
            else (int(getattr(value.value, _UNION[value.valueType])), None)
            for name, value in zip(names, values, strict=True)
        }

    def read(self) -> Values:
        """One reading. What fails this time is None.

        Raises:
            GpuLost: the GPU is gone.
            DriverGone: the driver is gone.
        """
        values: dict[str, int | None] = {}
        failing: dict[str, str] = {}
        for name, (value, error) in self._read_fields(self._field_names).items():
            if error is not None:
                _raise_if_lost(pynvml.NVMLError(error))
                failing[name] = _reason(error)
            values[name] = value
        if self.power_source != "unknown":
            field_name = _INSTANT if self.power_source == "instant" else _AVERAGE
            values["power_mw"] = values.get(field_name)
        values["power_average_mw"] = values.get(_AVERAGE)
        for name, function in zip(QUANTITIES, self._functions, strict=True):
            if function is not None:
                try:
                    values[name] = function(self.handle)
                    self.unsupported.pop(name, None)
                except pynvml.NVMLError as error:
                    _raise_if_lost(error)
                    values[name] = None
                    if name not in self.unsupported:
                        failing[name] = _reason(error.value)
        self.failing = failing
        return tuple(values.get(name) for name in QUANTITIES)

    def find_again(self) -> None:
        """Take a new handle for the same GPU, and probe it.

        Raises:
            GpuLost: it is still away.
            DriverGone: the driver is gone.
        """
        try:
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)
        except pynvml.NVMLError as error:
            _raise_if_lost(error)
            raise GpuLost(_reason(error.value)) from None
        self.probe()
        if all(value is None for value in self.read()):
            raise GpuLost("it answers nothing")


_FUNCTIONS: dict[str, Callable[[Any], int]] = {
    "power_mw": pynvml.nvmlDeviceGetPowerUsage,
    "energy_mj": pynvml.nvmlDeviceGetTotalEnergyConsumption,
    "util_pct": lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
    "mem_used_mib": lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle).used >> 20,
    "temp_c": lambda handle: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
    "sm_clock_mhz": lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
    "power_limit_mw": pynvml.nvmlDeviceGetEnforcedPowerLimit,
    "throttle_reasons": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
    # Only field values answer; without them this gives the reason.
    "mem_temp_c": lambda handle: _raise(pynvml.NVML_ERROR_NOT_SUPPORTED),
}


def _raise(code: int) -> int:
    raise pynvml.NVMLError(code)


def _reason(code: int | None) -> str:
    names = (n for n in vars(pynvml) if n.startswith("NVML_ERROR_"))
    return next((n for n in names if getattr(pynvml, n) == code), f"NVML error {code}")


def _raise_if_lost(error: Any) -> None:
    if error.value in _LOST:
        raise GpuLost(_reason(error.value)) from None
    if error.value in _GONE:
        raise DriverGone(_reason(error.value)) from None


class Driver:
    """The NVIDIA driver of this machine, between `open` and `close`."""

    def __init__(self) -> None:
        self.version = ""
        self.refused: dict[int, str] = {}
        """Index -> why a GPU that is there cannot be used."""

    def open(self) -> list[NvmlGpu]:
        """Start NVML and list the GPUs that this process may use, in NVML's (PCI) order.

        Raises:
            DriverMissing: no library, no driver, or it does not answer.
        """
        try:
            pynvml.nvmlInit()
            self.version = _text(pynvml.nvmlSystemGetDriverVersion())
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise DriverMissing(_reason(error.value)) from None
        gpus = []
        self.refused.clear()
        for index in range(count):
            try:
                gpus.append(_identify(index))
            except pynvml.NVMLError as error:
                # NVML counts the GPUs of other jobs, too, though this process may not use them.
                if error.value != pynvml.NVML_ERROR_NO_PERMISSION:
                    self.refused[index] = _reason(error.value)
        return gpus

    def close(self) -> None:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            # A driver that is gone needs no closing.
            return


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA driver that answers, and at least one GPU."""
    driver = Driver()
    try:
        return bool(driver.open())
    except DriverMissing:
        return False
    finally:
        driver.close()


def _identify(index: int) -> NvmlGpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return NvmlGpu(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        index=index,
        model=_text(pynvml.nvmlDeviceGetName(handle)),
        instances=_list_instances(handle),
        handle=handle,
    )


def _list_instances(handle: Any) -> tuple[Instance, ...]:
    """MIG instances with their compute slices as shares of the parent; none without MIG."""
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return ()
        slots = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:
        return ()
    whole = _count_slices(handle)
    instances = []
    for slot in range(slots):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
            slices = pynvml.nvmlDeviceGetAttributes(instance).computeInstanceSliceCount
            uuid = _text(pynvml.nvmlDeviceGetUUID(instance))
        except pynvml.NVMLError:
            continue
        instances.append(Instance(uuid, min(slices, whole) * 1_000_000 // whole))
    return tuple(instances)


def _count_slices(handle: Any) -> int:
    """Compute slices of the whole GPU: that of the largest profile it offers."""
    for profile in (
        pynvml.NVML_GPU_INSTANCE_PROFILE_8_SLICE,
        pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE,
        pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE,
    ):
        try:
            return int(pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, profile, 1).sliceCount)
        except pynvml.NVMLError:
            continue
    return 7


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
