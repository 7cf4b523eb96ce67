# SPDX-License-Identifier: Apache-2.0
#
# boot.sh ROOT CGROUP DIR CONSOLE: becomes systemd, as the first process of a namespace of
# processes, with ROOT as its files. What it writes into these stays in memory, in DIR.
set -eu
root=$1 cgroup=$2 dir=$3 console=$4
echo 0 >"$cgroup/cgroup.procs"
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
cd "$dir/root"
mount -t proc proc proc
mount -t sysfs sys sys
mount -t bpf -o mode=700 bpf sys/fs/bpf # as systemd does where it is in no container
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do
	touch "dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
ln -s pts/ptmx dev/ptmx
touch dev/console
mount --bind "$console" dev/console
# Nothing of the machine is started here.
rm -f etc/fstab usr/sbin/policy-rc.d
mkdir -p etc/systemd/system old
printf '[Unit]\nRequires=sysinit.target\nWants=dbus.socket\nAfter=sysinit.target\n' >etc/systemd/system/test.target
pivot_root . old
exec unshare --cgroup sh -c '
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	umount -l /old && rmdir /old
	exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --show-status=0 systemd.unit=test.target' </dev/null
