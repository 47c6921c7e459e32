"""The API's requests and answers. FastAPI checks and documents them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_TEXTS = 8
MAX_NOUNS = 6
MAX_PAGE = 48
_MAX_RESULT = 5_000  # a later page costs a larger part of the ranking
_CLIPS = 2**31

Text = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"\S")]
Noun = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"\S")]
Score = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=0, lt=_CLIPS)]
Side = Annotated[Literal["0", "1"], Field(description="0: the run; 1: the run beside it")]


class SearchQuery(BaseModel):
    """A search by texts, by a clip, or by both."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[
        list[Text], Field(max_length=MAX_TEXTS, description="descriptions, which are averaged")
    ] = []
    without: Annotated[
        list[Text], Field(max_length=MAX_TEXTS, description="what the clips should not be")
    ] = []
    like: Annotated[Number | None, Field(description="find clips like this one")] = None
    dataset: Annotated[str | None, Field(max_length=200, description="only its clips")] = None
    label: Annotated[str | None, Field(max_length=200, description="only clips with it")] = None
    video: Annotated[str | None, Field(max_length=500, description="id of the video")] = None
    shortest: Annotated[Seconds, Field(description="minimum length in seconds")] = 0
    longest: Annotated[Seconds | None, Field(description="maximum length in seconds")] = None
    min_score: Annotated[Score | None, Field(description="minimum cosine")] = None
    by_video: Annotated[bool, Field(description="only the best clip of each video")] = False
    page: Annotated[int, Field(ge=1, le=_MAX_RESULT, description="page of the results")] = 1
    size: Annotated[int, Field(ge=1, le=MAX_PAGE, description="clips a page")] = 12
    side: Side = "0"

    @model_validator(mode="after")
    def _consistent(self) -> "SearchQuery":
        if not self.text and self.like is None:
            raise ValueError("give a text, or the number of a clip in `like`")
        if self.page * self.size > _MAX_RESULT:
            raise ValueError(f"only the first {_MAX_RESULT:,} clips can be shown")
        return self


class StructureQuery(BaseModel):
    """The nouns to locate in a clip."""

    model_config = ConfigDict(extra="forbid")

    noun: Annotated[list[Noun], Field(max_length=MAX_NOUNS)] = []
    side: Side = "0"


class Clip(BaseModel):
    """An indexed clip."""

    number: int
    clip_id: str
    video_id: str
    start_us: int
    end_us: int
    caption: str
    nouns: list[str]
    labels: list[str]
    frames: int = Field(description="frames of the film")
    width: int = Field(description="width of a frame of the film, pixels")
    height: int
    video: bool = Field(description="whether the video's file can be played")


class Found(Clip):
    """A found clip."""

    rank: int
    score: float = Field(description="cosine of the query and the clip")


class SearchAnswer(BaseModel):
    """One page of the found clips, best first."""

    more: bool = Field(description="whether there is another page")
    nouns: list[str] = Field(description="noun phrases of the query")
    results: list[Found]


class Located(BaseModel):
    """Location of a noun in a clip."""

    noun: str
    cosine: float
    share: float
    heat: list[list[list[int]]] = Field(
        description="[window][row][column]: soft assignment to the noun's group, in 1/255"
    )


class StructureAnswer(BaseModel):
    """A clip as the model sees it."""

    similarity: list[list[float]] = Field(description="cosines of the clip's windows")
    window_of: list[int] = Field(description="the window of each frame of the film")
    crop: list[float] = Field(
        description="left, top, width and height of the model's view, as shares of the frame"
    )
    nouns: list[Located]


class RunAbout(BaseModel):
    """A served run."""

    name: str
    step: int
    averaged: bool


class SnapshotAbout(BaseModel):
    """A snapshot of the clips."""

    name: str
    dataset: str
    manifest_sha256: str


class About(BaseModel):
    """The served runs and clips."""

    runs: list[RunAbout]
    snapshots: list[SnapshotAbout]
    clips: int
    labels: list[str]
    videos: bool = Field(description="whether videos can be played")
    examples: list[str] = Field(description="captions of some clips, to search for")
    spread: list[int] = Field(description="the numbers of some clips, evenly spread")


class ErrorDetail(BaseModel):
    """The reason of a refused request."""

    type: Literal[
        "invalid",
        "unauthorized",
        "forbidden",
        "not_found",
        "too_large",
        "too_many",
        "busy",
        "damaged",
        "internal",
    ]
    message: str
    field: str | None = None


class ErrorAnswer(BaseModel):
    """A refused request."""

    error: ErrorDetail
