# SharpStudent in a container, with the versions and hashes of requirements.txt.
#
#     docker build --tag sharpstudent .
#     docker run --rm --volume "$PWD:/work" sharpstudent predict deepfake-small photo.jpg
#
# Dockerfile.cuda is the same with CUDA. Neither has been built where the project is made; both pass hadolint.

FROM python:3.11-slim-bookworm

# Libraries for pictures and videos come within the wheels: Debian needs to add nothing.
WORKDIR /opt/sharpstudent
COPY requirements.txt pyproject.toml README.md LICENSE NOTICE ./
COPY .ci/environment.py .ci/
COPY configs configs
COPY lib lib

# The CPU build of torch: a quarter of the size. TORCH=cuda takes the build of the package registry.
ARG TORCH=cpu
RUN python .ci/environment.py /opt/venv --torch "${TORCH}" \
 && useradd --create-home --uid 1000 user
ENV PATH="/opt/venv/bin:${PATH}" PYTHONUNBUFFERED=1

USER 1000
WORKDIR /work
ENTRYPOINT ["sharpstudent"]
CMD ["--help"]
