# Says how a container's checks are as soon as that is known, or after SECONDS, and below it what the last check said.
#
#   await NAME SECONDS
state=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/sisforge
now() { read -r up rest </proc/uptime; up=${up%%.*}; }
now
end=$((up + $2))
while :; do
	id= health=unknown
	read -r id health <"$state/$1.health"
	case $health in
	starting) ;;
	*) break ;;
	esac
	now
	[ "$up" -lt "$end" ] || break
	sleep 0.2
done 2>/dev/null
echo "$health"
[ -z "$id" ] || head -c 1000 "$state/$id.said" 2>/dev/null || :
