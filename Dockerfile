# danet serve in a container, on the CPU. A token is required because the server listens on all interfaces.
#   docker build -t danet .
#   docker run --rm --read-only -p 127.0.0.1:8000:8000 -e DANET_TOKEN=$(openssl rand -hex 16) danet
# Options of danet serve go to the end; another --port must then also be published. `.ci/container` runs these steps
# without a builder.
FROM python:3.13-slim
# wheels without CUDA; for GPUs, give the address of the index with the ordinary wheels as TORCH_INDEX
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin danet \
    && pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision
COPY pyproject.toml README.md LICENSE /source/
COPY danet /source/danet
RUN pip install --no-cache-dir "/source[serve]" && rm -r /source
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=60s --timeout=15s CMD ["python3", "-m", "danet.serve.healthcheck"]
ENTRYPOINT ["danet", "serve", "--host", "0.0.0.0"]
