"""VllmTeacher: vLLM on the cluster as a teacher.

    teacher = VllmTeacher(config.teacher, seed=1)
    reply = await teacher.ask(request)

The prompt begins with the fixed instruction, so vLLM's prefix cache reads it once. With `guided`
the text follows the answer's JSON schema token by token: it parses, unless it is cut off.
"""

from lorid.config import TeacherConfig
from lorid.engines.vllm import VllmEngine
from lorid.errors import EngineError
from lorid.teacher.api import KNOWLEDGE_SCHEMA
from lorid.teacher.base import Reply, TeacherRequest, Usage
from lorid.teacher.failures import Failed, Failure, short


class VllmTeacher:
    """See `lorid.teacher.base.Teacher`; raises LoridError when the engine has died."""

    def __init__(self, teacher: TeacherConfig, *, seed: int) -> None:
        self.schema = KNOWLEDGE_SCHEMA if teacher.guided else None
        self.sampling = teacher.sampling
        self.model = teacher.vllm_model
        self.engine = VllmEngine(
            student=self.model, sampling=teacher.sampling, engine=teacher.engine, seed=seed
        )

    async def ask(self, request: TeacherRequest) -> Reply:
        """See `Teacher.ask`."""
        sampling = self.sampling.model_copy(update={"temperature": request.temperature})
        try:
            completion = await self.engine.complete(
                request.prompt, seed=request.seed, sampling=sampling, schema=self.schema
            )
        except EngineError as error:
            # An engine that is dead or never lived ends the stage; what a live one refuses is set
            # aside.
            if self.engine.engine is None:
                raise
            await self.engine.check()
            raise Failed(Failure(kind="refused", reason=short(str(error)))) from error
        return Reply(
            text=completion.text,
            finish_reason=completion.finish_reason,
            usage=Usage(
                input_tokens=completion.num_prompt_tokens, output_tokens=completion.num_tokens
            ),
            model=self.model.path,
        )

    async def aclose(self) -> None:
        """See `Teacher.aclose`."""
        await self.engine.aclose()
