"""The seams into LeRobot: every place where this plugin reaches into code that is not its own.

LeRobot offers no hooks there, so each seam rests on what LeRobot's code looks like today. ``SEAMS`` says what
that is, what is put in its place and what breaks without it. Checks read source and import nothing: LeRobot's
actor runs as ``__main__`` and must not be imported a second time, and robosuite is slow to import. A LeRobot
that has moved ends in a :class:`SeamError` of one line, never in an actor that acts on without the plugin.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.plugin.source import difference

_WRITTEN_FOR = {
    "lerobot": ("LeRobot", "lerobot==0.6.1"),
    "draccus": ("draccus", "draccus==0.11.6"),
    "grpc": ("grpcio", "grpcio==1.85.1"),
    "robosuite": ("robosuite", "robosuite==1.4.0"),
}
"""Package → its name for the reader, and the release whose code the table below describes."""

log = logging.getLogger(__name__)


class SeamError(RuntimeError):
    """LeRobot is not what this plugin was written for; one line that names the seam and the version."""


@dataclass(frozen=True)
class Seam:
    """One place where the plugin reaches into LeRobot.

    Attributes:
        name: For messages.
        expected: What LeRobot's code must look like. ``module:function``, ``module:class`` or
            ``module:class.method``, with ``(parameters)`` where their names matter → pieces of its source, in
            the order in which they stand there. They are spelled as ``ast.unparse`` does (single quotes, a
            line for each statement, no comments), so that LeRobot's formatting does not matter.
        instead: What takes its place.
        without: What breaks without it, as the end of a sentence that begins with "without it".
        attribute: What :func:`install` sets; "" where nothing is replaced through it.
        entry: The attribute is an entry of a registry of config classes.
    """

    name: str
    expected: Mapping[str, tuple[str, ...]]
    instead: str
    without: str
    attribute: str = ""
    entry: bool = False


_OPEN_CHANNEL = "learner_service_client(host=cfg.policy.actor_learner_config.learner_host"

CHANNEL = Seam(
    name="channel",
    expected={
        "grpc:insecure_channel(target, options, compression)": (),
        "lerobot.rl.actor:learner_service_client(host, port)": (
            "@lru_cache(maxsize=1)",
            "grpc.insecure_channel(f'{host}:{port}', grpc_channel_options())",
            "services_pb2_grpc.LearnerServiceStub(channel)",
        ),
    },
    instead="`transport.LearnerChannel`: it re-opens its streams, repeats a message until it is taken, "
    "and asks the learner what to play",
    without="the actor loses its episodes and keeps old weights once the learner restarts",
    attribute="insecure_channel",
)
SIGNAL_HANDLER = Seam(
    name="signal handler",
    expected={
        "lerobot.utils.process:ProcessSignalHandler.__init__": ("self.shutdown_event = ",),
        "lerobot.rl.actor:actor_cli": (
            "ProcessSignalHandler(is_threaded, display_pid=display_pid).shutdown_event",
            _OPEN_CHANNEL,
        ),
    },
    instead="LeRobot's own constructor, after which the channel knows the event that stops the actor, "
    "and lines look like ours",
    without="an actor that is told to stop goes on waiting for the learner",
    attribute="__init__",
)
VALIDATE = Seam(
    name="validate",
    expected={
        "lerobot.rl.train_rl:TrainRLServerPipelineConfig.validate(self)": (
            "super().validate()",
            "self.algorithm.policy_config = self.policy",
        ),
        "lerobot.rl.actor:actor_cli(cfg)": ("cfg.validate()", _OPEN_CHANNEL),
    },
    instead="`pipeline.validate`: LeRobot's, then environment, noise and channel are bound to the run",
    without="the environment does not know the policy, and nothing intercepts the actor's channel",
    attribute="validate",
)
PARSE = Seam(
    name="parse",
    expected={
        "lerobot.configs.parser:wrap": ("draccus.parse(config_class=argtype", "except DecodingError"),
        "lerobot.configs.train:TrainPipelineConfig.from_pretrained": ("draccus.parse(cls, config_file",),
        "lerobot.configs.policies:PreTrainedConfig.from_pretrained": (
            "draccus.parse(config_cls, config_file",
        ),
        "draccus.argparsing:parse(config_class, config_path, args, prog, exit_on_error, preferred_help)": (),
    },
    instead="`parsing.parse`: draccus's own; what it refuses is one line, once `prepare` has been called",
    without="a wrong setting ends in a thousand lines of usage, or in a traceback",
    attribute="parse",
)
OPTION_HELP = Seam(
    name="option help",
    expected={
        "draccus.wrappers.docstring:get_attribute_docstring(some_dataclass, field_name)": (),
        "draccus.wrappers.field_wrapper:FieldWrapper": ("docstring.get_attribute_docstring(",),
    },
    instead="draccus's own, remembered: it searches a class's source for each option that shows a field",
    without="reading a command line takes three times as long",
    attribute="get_attribute_docstring",
)
GET_ALGORITHM_CLASS = Seam(
    name="get_algorithm_class",
    expected={
        "lerobot.rl.algorithms.factory:get_algorithm_class(name)": (),
        "lerobot.rl.algorithms.factory:make_algorithm(cfg, policy)": (
            "get_algorithm_class(cfg.type)",
            "cls(policy=policy, config=cfg)",
        ),
        "lerobot.rl.actor:act_with_policy": ("make_algorithm(cfg=cfg.algorithm, policy=policy)",),
        "lerobot.rl.actor:update_policy_parameters": ("algorithm.load_weights(state_dicts, device=device)",),
    },
    instead="`algorithm.get_algorithm_class`, which knows `pi_rl` besides LeRobot's names",
    without="LeRobot knows no algorithm of the type pi_rl",
    attribute="get_algorithm_class",
)
PROCESSOR_FACTORY = Seam(
    name="processor factory",
    expected={
        "lerobot.policies.xvla.processor_xvla:make_xvla_pre_post_processors(config, dataset_stats)": (),
        "lerobot.policies.factory:_make_processors_from_policy_config": (
            "f'make_{policy_type}_pre_post_processors'",
            "getattr(module, function_name, None)",
            "function(config, **call_kwargs)",
        ),
        "lerobot.rl.actor:act_with_policy": (
            "make_pre_post_processors(policy_cfg=cfg.policy, dataset_stats=cfg.policy.dataset_stats)",
            "preprocessor.process_observation(observation)",
            "postprocessor.process_action(action)",
        ),
    },
    instead="`processors.make_processors`: X-VLA's, minus what the environment did, and rows untouched",
    without="X-VLA's processors look for a task that the actor does not pass on, and change the action row",
    attribute="make_xvla_pre_post_processors",
)
LIBERO_ENTRY = Seam(
    name="libero registry entry",
    expected={
        "lerobot.envs.configs:LiberoEnv": ("@EnvConfig.register_subclass('libero')",),
        "lerobot.envs.configs:LiberoEnv.create_envs(self, n_envs, use_async_envs)": (),
        "lerobot.rl.gym_manipulator:make_robot_env(cfg)": (
            "if cfg.name == 'gym_hil':",
            "gym.make(f'gym_hil/{cfg.task}'",
        ),
    },
    instead="`libero_config.LiberoConfig`, which extends LeRobot's class by the actor's settings",
    without="env.type=libero makes no environment that the actor can step",
    attribute="libero",
    entry=True,
)
LIBERO_NAME = Seam(
    name="libero choice name",
    expected={"lerobot.envs.configs:EnvConfig.type(self)": ("return self.get_choice_name(self.__class__)",)},
    instead="draccus's own, for which LeRobot's `LiberoEnv` is `libero` as well as what has taken its place",
    without="LeRobot's own LiberoEnv has no type, and cannot be written to a config",
    attribute="get_choice_name",
)
SELECT_ACTION = Seam(
    name="select_action",
    expected={
        "lerobot.policies.xvla.modeling_xvla:XVLAPolicy.select_action(self, batch, noise)": (),
        "lerobot.rl.actor:act_with_policy": (
            "make_algorithm(cfg=cfg.algorithm, policy=policy)",
            "policy.select_action(batch=normalized_observation)",
        ),
    },
    instead="`PiRLAlgorithm.select_action` on the policy's instance: a whole chunk as one packed row",
    without="the actor sends bare actions, of which the learner cannot compute a likelihood",
    attribute="select_action",
)
FROM_PRETRAINED = Seam(
    name="from_pretrained",
    expected={
        "lerobot.policies.xvla.modeling_xvla:XVLAPolicy.from_pretrained": (),
        "lerobot.policies.factory:make_policy": (
            "kwargs['config'] = cfg",
            "policy = policy_cls.from_pretrained(**kwargs)",
            "policy.to(cfg.device)",
        ),
        "lerobot.rl.actor:act_with_policy": ("policy = make_policy(cfg=cfg.policy",),
    },
    instead="`served.from_pretrained`: LeRobot's own, but an actor of a policy server gets a module "
    "without parameters",
    without="an actor that a policy server acts for loads the policy's weights all the same",
    attribute="from_pretrained",
)
DISCRETE_PENALTY = Seam(
    name="discrete_penalty side channel",
    expected={
        "lerobot.rl.gym_manipulator:make_processors": ("GymHILAdapterProcessorStep()",),
        "lerobot.rl.gym_manipulator:step_env_and_process_transition": (
            "new_info = info.copy()",
            "info=new_info",
            "env_processor(new_transition)",
        ),
        "lerobot.processor.hil_processor:GymHILAdapterProcessorStep.__call__": (
            "complementary_data[DISCRETE_PENALTY_KEY] = info[DISCRETE_PENALTY_KEY]",
        ),
        "lerobot.rl.actor:act_with_policy": (
            "new_transition[TransitionKey.COMPLEMENTARY_DATA].get('discrete_penalty', 0.0)",
            "complementary_info=complementary_info",
        ),
    },
    instead="a list in the environment's `info`: steps executed, success, seed, task, initial state, rewards",
    without="the learner does not know how far a chunk was executed, nor what each step earned",
)
ROBOSUITE = Seam(
    name="robosuite internals",
    expected={
        "robosuite.environments.robot_env:RobotEnv._create_camera_sensors"
        "(self, cam_name, cam_w, cam_h, cam_d, cam_segs, modality)": (),
        "robosuite.environments.robot_env:RobotEnv._setup_observables": (
            "self._create_camera_sensors(cam_name, cam_w=cam_w, cam_h=cam_h, cam_d=cam_d, cam_segs=cam_segs",
        ),
        "robosuite.environments.base:MujocoEnv._update_observables": ("self._observables.values()",),
        "robosuite.utils.observables:Observable.update": ("self._sensor(obs_cache)",),
        "robosuite.utils.binding_utils:MjSim.add_render_context": (
            "self._render_context_offscreen = render_context",
        ),
        "robosuite.utils.binding_utils:MjRenderContext.__init__": (
            *("self.gl_ctx = ", "self.model = ", "self.data = "),
            *("self.scn = ", "self.cam = ", "self.vopt = ", "self.pert = "),
        ),
        "robosuite.utils.binding_utils:MjRenderContext.update_offscreen_size(self, width, height)": (),
        "robosuite.utils.binding_utils:MjRenderContext.read_pixels"
        "(self, width, height, depth, segmentation)": (),
    },
    instead="`bridge.libero.cameras.Cameras`: sensors that record the scene, drawn when it is asked for",
    without="LIBERO draws every camera at every control step, at ten times the cost of the physics",
)
SEAMS = (
    CHANNEL,
    SIGNAL_HANDLER,
    VALIDATE,
    PARSE,
    OPTION_HELP,
    GET_ALGORITHM_CLASS,
    PROCESSOR_FACTORY,
    LIBERO_ENTRY,
    LIBERO_NAME,
    SELECT_ACTION,
    FROM_PRETRAINED,
    DISCRETE_PENALTY,
    ROBOSUITE,
)

_installed: dict[str, tuple[Any, Any]] = {}  # seam's name → (owner of the attribute, what was put there)


def check(seam: Seam) -> None:
    """Compare what a seam rests on with the source of the installed packages.

    Raises:
        SeamError: They differ.
    """
    for place, code in seam.expected.items():
        if what := difference(place, code):
            package = place.split(":")[0].split(".")[0]
            raise moved(seam, f"{place.partition('(')[0]} {what}", package)


def check_all() -> None:
    """Check every seam that an actor has whatever it plays; robosuite's is checked where LIBERO is made.

    Raises:
        SeamError: One of them has moved.
    """
    for seam in SEAMS:
        if seam is not ROBOSUITE:
            check(seam)


def install(seam: Seam, owner: Any, replacement: Any) -> Any:
    """Check a seam and put a replacement in place; return what stood there.

    Args:
        seam: With an ``attribute``.
        owner: The module, class, instance or registry that has it.
        replacement: The new value.

    Raises:
        SeamError: LeRobot has moved.
    """
    check(seam)
    stock = _present(seam, owner)
    if stock is None:
        raise moved(seam, f"{_label(owner)} has no {seam.attribute}")
    if seam.entry:
        owner.get_known_choices()[seam.attribute] = replacement
    else:
        setattr(owner, seam.attribute, replacement)
    _installed[seam.name] = (owner, replacement)
    _confirm(seam)
    return stock


def confirm_installed() -> None:
    """Make sure that this process came by every place that puts a replacement in, and that all still stand.

    Raises:
        SeamError: One does not.
    """
    for seam in SEAMS:
        if seam.attribute:
            _confirm(seam)


def moved(seam: Seam, what: str, package: str = "lerobot") -> SeamError:
    """Log in one line that LeRobot has moved, and return it as the error to raise.

    What is raised while LeRobot's actor acts is caught there, logged with a traceback, and the actor exits
    with 0: the line has to stand in the log by itself.

    Args:
        seam: Where the plugin reaches in.
        what: What is not as expected.
        package: Top-level package in which it is not.
    """
    name, requirement = _WRITTEN_FOR[package]
    error = SeamError(
        f"{name} {_version(requirement)} has moved: seam '{seam.name}': {what}; without it, {seam.without}. "
        f"Install {requirement}."
    )
    log.error("%s", error)
    return error


def _present(seam: Seam, owner: Any) -> Any:
    if seam.entry:
        return owner.get_known_choices().get(seam.attribute)
    return getattr(owner, seam.attribute, None)


def _confirm(seam: Seam) -> None:
    if seam.name not in _installed:
        raise moved(seam, "this process never came to where the plugin puts its replacement in")
    owner, replacement = _installed[seam.name]
    if _present(seam, owner) is not replacement:
        raise moved(seam, f"{_label(owner)}'s {seam.attribute} is not this plugin's")


def _label(owner: Any) -> str:
    return getattr(owner, "__name__", None) or type(owner).__name__


def _version(requirement: str) -> str:
    try:
        return importlib.metadata.version(requirement.split("==")[0])
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
