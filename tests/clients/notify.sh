#!/bin/bash
# Speaks for a service with systemd-notify(1), whose path is $1. The words after it are a first message; each line from
# descriptor 3, words between tabs, is another. `@child` stands for the pid of a child; `@feed` and `@quiet` alone begin
# and end a message of WATCHDOG=1 every 200 ms.
notify=$1
shift
sleep 1000 &
child=$!
say() {
    "$notify" "${@//@child/$child}"
    # It answers once its barrier was passed, and fails if that takes long.
    echo "said $?: $*"
}
echo "has $LISTEN_FDNAMES"
echo "told $WATCHDOG_USEC, $((WATCHDOG_PID == $$))"
[ $# = 0 ] || say "$@"
feeding=
while :; do
    # A pause without an order is not the end of them.
    if ! IFS=$'\t' read -r -u 3 ${feeding:+-t 0.2} -a words; then
        [ -n "$feeding" ] || exit 1
        say WATCHDOG=1 >/dev/null
        continue
    fi
    case ${words[0]} in
    @feed) feeding=1 ;;
    @quiet) feeding= ;;
    *) say "${words[@]}" ;;
    esac
done
