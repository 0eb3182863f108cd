# Checks a container of a guest until it is removed or replaced, and keeps in NAME.health what came of it: the container's id, and
# starting, healthy or unhealthy.
#
#   health ID DIRECTORY NAME CHECK INTERVAL TIMEOUT RETRIES START
id=$1 file=$2/$3.health run=$2/$1 check=$4 interval=$5 timeout=$6 retries=$7 start=$8
eval "set -- $check"
now() { read -r up rest </proc/uptime; up=${up%%.*}; }
# Whether nobody has taken the container's place, who then keeps the file.
is_ours() {
	owner=
	[ ! -e "$file" ] || read -r owner rest <"$file"
	[ "$owner" = "$id" ]
}
tell() {
	is_ours || end
	echo "$id $1" >"$run.told"
	mv "$run.told" "$file"
}
end() {
	! is_ours || rm -f "$file"
	rm -f "$run".*
	exit 0
}
failed() {
	now
	[ "$state" != starting ] || [ $((up - begun)) -ge "$start" ] || return
	failures=$((failures + 1))
	[ "$failures" -lt "$retries" ] || state=unhealthy
	tell "$state"
}
state=starting failures=0
now
begun=$up
while :; do
	rm -f "$run.status"
	{
		{
			podman exec "$id" "$@" </dev/null 2>&1
			echo $? >"$run.ended"
		} | head -c 4096 >"$run.said"
		mv "$run.ended" "$run.status"
	} &
	now
	due=$((up + timeout))
	# One that hangs has failed, and again after each interval; no second one is begun beside it.
	until [ -e "$run.status" ]; do
		sleep 0.2
		now
		if [ "$up" -ge "$due" ]; then
			failed
			due=$((up + interval + timeout))
		fi
	done
	wait
	code=
	read -r code <"$run.status"
	case $code in
	0) failures=0 state=healthy && tell healthy ;;
	125)
		podman container exists "$id" || end
		failed
		;;
	*) failed ;;
	esac
	now
	if [ "$state" = starting ] && [ $((up - begun)) -lt "$start" ] && [ "$interval" -gt 2 ]; then
		sleep 2
	else
		sleep "$interval"
	fi
done
