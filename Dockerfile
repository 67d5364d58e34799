# One image for the API, the migration and the workers: the command decides which.
FROM python:3.11-slim

# Without a GPU, name PyTorch's own CPU index here: the default wheel brings CUDA.
ARG TORCH_PIP_ARGS=""

RUN useradd --create-home --uid 10001 retort && mkdir /data && chown retort /data
WORKDIR /app

COPY constraints.txt ./
RUN pip install --no-cache-dir ${TORCH_PIP_ARGS} "$(grep '^torch==' constraints.txt)"

COPY pyproject.toml README.md ./
COPY api api
COPY core core
COPY db db
COPY migrations migrations
COPY retort retort
COPY worker worker
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[export,timm,parquet]'

USER retort
ENV RETORT_DATA=/data
VOLUME /data
CMD ["python", "-m", "api"]
