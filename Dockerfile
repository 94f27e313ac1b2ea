# heatlas with its tested dependencies, on CPUs and NVIDIA GPUs.
#
#     docker build --tag heatlas .
#     docker run --rm --gpus all --volume "$PWD:/data" heatlas explain --model torchvision:resnet50@DEFAULT --data photos --out maps
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN python -m pip install --no-cache-dir --disable-pip-version-check build==1.6.1 \
    && python -m build --wheel --outdir /wheels .

FROM python:3.12-slim
COPY constraints/run.txt constraints/gpu.txt /constraints/
COPY --from=build /wheels /wheels
RUN python -m pip install --no-cache-dir --disable-pip-version-check \
        --constraint /constraints/run.txt --constraint /constraints/gpu.txt /wheels/*.whl \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 heatlas
USER 1000
WORKDIR /data
ENTRYPOINT ["heatlas"]
CMD ["--help"]
