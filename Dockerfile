# The page in a container: docs/hosting.md says how to build and run it, at home and in a cloud.
# It holds what `python -m hub space push` uploads: .dockerignore keeps everything else out.
# The version is python_version of README.md.
FROM python:3.11-slim

WORKDIR /app

# Every package has a wheel, so no compiler is installed.
COPY requirements.txt .
RUN pip install --no-cache-dir --only-binary :all: --requirement requirements.txt

COPY . .
RUN python -m compileall -q .

# A number, so that Kubernetes can see that it is not root. It owns nothing: the page writes below /tmp only, and so
# runs with a root file system that is read-only.
USER 1000
ENV HOME=/tmp \
    TMPDIR=/tmp \
    HF_HOME=/tmp/huggingface \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    MODEL_ID=""
# HF_HOME: some platforms set HOME anew, to where user 1000 may not write. MODEL_ID: a model on the Hub to serve; empty
# for the one in the image. ORT_DISABLE_TELEMETRY: ONNX Runtime reports to Microsoft unless it is told not to.

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
