# What the first processes of nodes and control plane share: programs that are started again when they die, as systemd does.
# They have $home, where each program has NAME.log and, in NAME.pid, its process as the namespace numbers it.

# keep NAME COMMAND...
keep() {
  local program=$1
  shift
  while :; do
    "$@" >>"$home/$program.log" 2>&1 &
    echo $! >"$home/$program.pid"
    wait $! || true
    sleep 0.3
  done &
}

# Takes in processes that lost their parents, for good.
reap() { while :; do wait -n || sleep 0.2; done; }
