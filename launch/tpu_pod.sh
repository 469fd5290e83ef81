#!/usr/bin/env bash
# A run on a TPU pod slice of Google Cloud, asked for as a queued resource.
#
#   bash launch/tpu_pod.sh run --name NAME --zone ZONE --type v5litepod-256 [OPTIONS] -- \
#       python -m ctxjax.train --distributed --config FILE.py:ARG --workdir gs://BUCKET/NAME
#
# Needed: gcloud, logged in; an ssh key in the agent (ssh-add ~/.ssh/google_compute_engine); a committed checkout.
#
# COMMANDS
#   run       everything below, until the run has ended; what is preempted is asked for again, and what fails is started
#             again, since the same command continues a run; at the end the logs are fetched and the pod is deleted
#   create    ask for the pod                         state     how the request stands, and whether the run does
#   wait      wait until it is there                  logs      the log of every worker, to NAME-logs/
#   install   this checkout and its packages          each      a shell command on all workers: each ... -- COMMAND
#   start     start the command on all workers        delete    give the pod back
# The run goes on when this program or its connection ends; `run` again follows it.
#
# OPTIONS
#   --name NAME        of pod and run: small letters, digits and -
#   --zone ZONE        --project PROJECT (gcloud's own by default)
#   --type TYPE        accelerator type, as in v5litepod-256
#   --version VERSION  runtime, as in v2-alpha-tpuv5-lite, v2-alpha-tpuv6e (tpu-ubuntu2204-base by default)
#   --spot             on Spot capacity, which may be taken away
#   --setup COMMAND    shell command on all workers of every new pod, in the checkout; to copy a corpus there
#   --retries N        failures in a row before it gives up (3)
#   --poll SECONDS     between two looks (60)
#   --keep             leave the pod there at the end
#   --dry-run          print the commands and run none
set -euo pipefail

PATIENCE=5 # questions in a row that may stay without an answer
LONG=3600  # seconds after which a failure is the first in a row

fail() {
    echo "error: $1" >&2
    exit "${2:-2}"
}

say() { [ -n "$dry" ] || echo "$(date +%H:%M:%S) $name: $1" >&2; }

quoted() { # words as a shell reads them back
    local word quote="'" mark="'\\''" space=""
    for word in "$@"; do
        case $word in
        "" | *[!A-Za-z0-9_./:=@%+,-]*) word=$quote${word//$quote/$mark}$quote ;;
        esac
        printf '%s%s' "$space" "$word"
        space=" "
    done
    echo
}

do_() { # run a command, or print it
    if [ -n "$dry" ]; then quoted "$@"; else "$@"; fi
}

# --- what runs on the workers; $1 is the name of the run ---

on_install='set -e
mkdir -p ~/ctxjax && tar -xzf ~/ctxjax.tgz -C ~/ctxjax && cd ~/ctxjax
python3 -m pip install --quiet --user uv
[ -x .venv/bin/python ] || python3 -m uv venv --quiet --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv/bin/python --constraint requirements.txt --editable ".[tpu,gcs]"'

# A process group of its own, so that it outlives the connection; what an earlier start left is ended first.
# shellcheck disable=SC2016  # for the worker's shell
on_start='run=~/ctxjax-runs/$1; shift
mkdir -p "$run"; cd ~/ctxjax || exit 2
old=$(cat "$run/pid" 2>/dev/null)
ours() { # by its environment, since the number may be another process by now
    [ -n "$old" ] && for one in $(pgrep -g "$old"); do
        tr "\0" "\n" <"/proc/$one/environ" | grep -qxF "CTXJAX_RUN=$run" && return
    done 2>/dev/null
    return 1
}
if ours; then
    kill -TERM -- "-$old"
    for _ in $(seq 120); do kill -0 -- "-$old" 2>/dev/null || break; sleep 0.5; done
    kill -KILL -- "-$old" 2>/dev/null
fi
rm -f "$run/code"
export CTXJAX_RUN=$run PATH=$PWD/.venv/bin:$PATH
setsid bash -c "\"\$@\"; echo \$? >\"\$CTXJAX_RUN/code.new\"; mv \"\$CTXJAX_RUN/code.new\" \"\$CTXJAX_RUN/code\"" \
    run "$@" </dev/null >>"$run/log" 2>&1 &
echo $! >"$run/pid"'

# shellcheck disable=SC2016  # for the worker's shell
on_look='run=~/ctxjax-runs/$1
if [ -f "$run/code" ]; then cat "$run/code"
elif [ -s "$run/pid" ] && kill -0 "$(cat "$run/pid")" 2>/dev/null; then echo running; tail -n 1 "$run/log" | tail -c 200
else echo gone; fi'

# --- what is asked of gcloud ---

queued() { # VERB [FLAGS]
    local verb=$1
    shift
    do_ gcloud compute tpus queued-resources "$verb" "$name" "${where[@]}" "$@"
}

on() { # WORKERS SCRIPT [WORDS]: a script on workers
    local workers=$1 script=$2
    shift 2
    do_ gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$workers" \
        "--command=$(quoted bash -c "$script" ctxjax "$@")"
}

look_at_request() { # sets state: ACTIVE, ..., none where there is no such request, or unknown
    if [ -n "$dry" ]; then
        queued describe "--format=value(state.state)"
        state=ACTIVE
        return
    fi
    local answer
    if answer=$(queued describe "--format=value(state.state)" 2>&1); then
        state=$(tail -n 1 <<<"$answer")
    elif grep -q NOT_FOUND <<<"$answer"; then
        state=none
    else
        state=unknown
        echo "$answer" >&2
    fi
}

look_at_run() { # sets status: running, gone, an exit code, or unknown; and line, the last one of the log
    if [ -n "$dry" ]; then
        on 0 "$on_look" "$name"
        status=0 line=""
        return
    fi
    local answer
    if answer=$(on 0 "$on_look" "$name" 2>/dev/null); then
        status=$(head -n 1 <<<"$answer") line=$(tail -n +2 <<<"$answer")
    else
        status=unknown line=""
    fi
}

create() {
    local spot=()
    [ -z "$spot_" ] || spot=(--spot)
    queued create "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" ${spot[@]+"${spot[@]}"}
}

wait_() { # until the pod is there; 1 where it will not be
    local silent=0 said=""
    while :; do
        look_at_request
        case $state in
        ACTIVE) return 0 ;;
        FAILED | SUSPENDED | SUSPENDING | DELETING | none) return 1 ;;
        unknown)
            silent=$((silent + 1))
            [ "$silent" -lt "$PATIENCE" ] || fail "gcloud gave no answer about $name $PATIENCE times in a row" 1
            ;;
        *) silent=0 ;;
        esac
        [ "$state" = "$said" ] || say "$state"
        said=$state
        sleep "$poll"
    done
}

install() {
    local packed="${TMPDIR:-/tmp}/ctxjax-$name.tgz"
    [ -n "$dry" ] || [ -z "$(git -C "$root" status --porcelain)" ] || say "what is not committed is not sent"
    do_ git -C "$root" archive --format=tar.gz "--output=$packed" HEAD || return
    do_ gcloud compute tpus tpu-vm scp "$packed" "$name:ctxjax.tgz" "${where[@]}" --worker=all || return
    on all "$on_install" "$name" || return
    # shellcheck disable=SC2016  # for the worker's shell
    [ -z "$setup" ] || on all 'cd ~/ctxjax && PATH=$PWD/.venv/bin:$PATH && eval "$1"' "$setup"
}

start() { on all "$on_start" "$name" "$@"; }

each() {
    # shellcheck disable=SC2016  # for the worker's shell
    on all 'cd ~/ctxjax && PATH=$PWD/.venv/bin:$PATH && eval "$1"' "$*"
}

logs() {
    do_ mkdir -p "$name-logs"
    do_ gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all "--output-directory=$name-logs" \
        "--command=cat ctxjax-runs/$name/log"
}

delete() { queued delete --force --quiet; }

state() {
    look_at_request
    [ -n "$dry" ] || echo "$state"
    [ "$state" != ACTIVE ] || look_at_run
    [ -n "$dry" ] || [ "$state" != ACTIVE ] || printf '%s\n' "$status" ${line:+"$line"}
}

# --- the whole ---

follow() { # until the run has ended or cannot be reached; sets status
    local silent=0 said=""
    while :; do
        look_at_run
        case $status in
        running)
            silent=0
            [ "$line" = "$said" ] || say "$line"
            said=$line
            ;;
        unknown)
            silent=$((silent + 1))
            [ "$silent" -lt "$PATIENCE" ] || return 0
            look_at_request
            case $state in ACTIVE | unknown) ;; *) return 0 ;; esac
            ;;
        *) return 0 ;;
        esac
        sleep "$poll"
    done
}

end() { # CODE SENTENCE
    say "$2"
    logs || true
    if [ -z "$keep" ]; then
        delete || say "could not be deleted and costs money: bash launch/tpu_pod.sh delete --name $name --zone $zone"
    fi
    exit "$1"
}

run() {
    local failures=0 began=0
    [ -n "$dry" ] || trap 'say "left; the run goes on, and the same command follows it"; exit 130' INT
    while :; do
        look_at_request
        if [ -n "$dry" ] || [ "$state" = none ]; then
            say "asking for $type"
            create || fail "gcloud did not take the request for $name" 1
        fi
        began=$SECONDS status=lost
        if wait_; then
            look_at_run
            if [ -n "$dry" ] || [ "$status" != running ]; then
                if install && start "$@"; then
                    say "started"
                else
                    status=lost
                fi
            fi
            [ "$status" = lost ] || follow
            look_at_request
        fi
        case $status in
        0) end 0 "done" ;;
        2) end 2 "ended by a mistake, which the log names" ;;
        3) end 3 "ended by itself and cannot go on; the log says why" ;;
        esac
        if [ "$state" != ACTIVE ] && [ "$state" != unknown ]; then
            say "$state: taken away; asking again"
            [ "$state" != FAILED ] || failures=$((failures + 1))
            [ "$state" = none ] || delete || failures=$((failures + 1))
        elif [ "$status" != 143 ]; then
            [ $((SECONDS - began)) -le "$LONG" ] || failures=0
            failures=$((failures + 1))
            say "failed ($status)"
        fi
        [ "$failures" -le "$retries" ] || end 1 "gave up after $failures failures in a row"
        sleep "$poll"
    done
}

command=${1:-}
case $command in
run | create | wait | install | start | state | logs | each | delete) shift ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
    case $command in -h | --help) exit 0 ;; *) exit 2 ;; esac
    ;;
esac
name="" zone="" project="" type="" version=tpu-ubuntu2204-base spot_="" setup="" retries=3 poll=60 keep="" dry=""
while [ $# -gt 0 ]; do
    case $1 in
    --spot) spot_=yes ;;
    --keep) keep=yes ;;
    --dry-run) dry=yes ;;
    --name | --zone | --project | --type | --version | --setup | --retries | --poll)
        [ $# -gt 1 ] || fail "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --)
        shift
        break
        ;;
    *) fail "unknown option $1; see bash launch/tpu_pod.sh --help" ;;
    esac
    shift
done
root=$(cd "$(dirname "$0")/.." && pwd)
case $name in
[a-z]*) [ -z "${name//[a-z0-9-]/}" ] || fail "--name $name: small letters, digits and -" ;;
*) fail "give --name: small letters, digits and -, a letter first" ;;
esac
case $retries${poll/./} in *[!0-9]*) fail "--retries and --poll are numbers" ;; esac
[ -n "$zone" ] || fail "give --zone"
where=("--zone=$zone")
[ -z "$project" ] || where+=("--project=$project")
case $command in run | create) [ -n "$type" ] || fail "give --type, as in v5litepod-256" ;; esac
case $command in
run | start | each) [ $# -gt 0 ] || fail "give a command after --" ;;
*) [ $# -eq 0 ] || fail "$command takes no command after --" ;;
esac
[ -n "$dry" ] || command -v gcloud >/dev/null || fail "gcloud is not installed"
case $command in
wait) wait_ || fail "$name is $state and will not become ACTIVE" 1 ;;
*) "$command" "$@" ;;
esac
