# One image for web, workers and clock; docker-compose.yml says which it is.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/venv/bin:$PATH

# Empty: the standard torch wheel, which brings CUDA. For machines without a GPU, half the size:
#   docker compose build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_INDEX=""

RUN useradd --uid 10001 --create-home lora && install -d -o lora -g lora /data /models /venv /app
WORKDIR /app

COPY requirements.txt constraints.txt ./
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir uv==0.13.9 \
 && UV_INDEX="$TORCH_INDEX" uv pip install --no-cache --compile-bytecode --index-strategy unsafe-best-match \
      --python /venv/bin/python -r requirements.txt -c constraints.txt

COPY --chown=lora:lora . .
USER lora

# Collected here and not at each start. The settings want to know that this is no embedded site; nothing is dialled.
ENV STATIC_ROOT=/app/collected-static
RUN LORA_DATA_DIR=/tmp/build SECRET_KEY=only-for-collecting-static-files-xxxxxxxxxxxxxxxxxxxxx \
    DATABASE_URL=postgres://nobody@localhost/nothing python manage.py collectstatic --noinput

ENV LORA_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
CMD ["gunicorn", "config.wsgi", "-c", "config/gunicorn.py", "--bind", "0.0.0.0:8000"]
