	# What a process has left that was killed. One that runs keeps what is its own, and is named.
	for state in /run/blixt/*.state.json; do
		[ -e "$state" ] || continue
		name=${state##*/}
		/usr/bin/blixt unload --name "${name%.state.json}" || true
	done
