"""The fake engine travels to Ray's actors by value, since `tests` is on no worker's path."""

import ray.cloudpickle

from ..support import fake_engine

ray.cloudpickle.register_pickle_by_value(fake_engine)
