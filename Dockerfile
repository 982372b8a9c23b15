# danet serve in a container. A token is required because the server listens on all interfaces of the container.
#   docker build -t danet . && docker run --rm -p 127.0.0.1:8000:8000 -e DANET_TOKEN=$(openssl rand -hex 16) danet
FROM python:3.13-slim
WORKDIR /danet
COPY pyproject.toml README.md LICENSE ./
COPY danet danet
RUN pip install --no-cache-dir ".[serve]" \
    && useradd --create-home danet
USER danet
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=3)"]
ENTRYPOINT ["danet", "serve", "--host", "0.0.0.0"]
