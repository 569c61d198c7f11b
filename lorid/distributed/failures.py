"""What really failed, under the exceptions that Ray wraps around it."""

from lorid.errors import LoridError


def root_cause(error: BaseException) -> BaseException:
    """The innermost lorid error of a failed task or worker, or else the error itself.

    Ray wraps a worker's exception several times, and names the wrapped one in different ways.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    innermost = error
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, LoridError):
            innermost = current
        failures = getattr(current, "worker_failures", {}) or {}
        queue += [current.__cause__, getattr(current, "cause", None), *failures.values()]
    return innermost
