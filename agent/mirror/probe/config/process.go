package config

import (
	"fmt"
	"os"

	"waxseal/agent/mirror"
)

// maxPID is the kernel's largest process id (PID_MAX_LIMIT, include/linux/threads.h).
const maxPID = 4 << 20

// processOf names the process whose netlink port is given. A port is mostly the
// id of the process that asked (net/netlink/af_netlink.c, netlink_autobind),
// but in its own PID namespace, and it may choose another: only a process that
// is in the namespace of the change, by inode, is taken for it. What asks and
// ends at once leaves no more than its id.
func processOf(port uint32, namespace uint64) mirror.Process {
	if port == 0 || port > maxPID {
		return mirror.Process{}
	}
	dir := fmt.Sprintf("/proc/%d", port)
	link, err := os.Readlink(dir + "/ns/net")
	if err == nil && link != fmt.Sprintf("net:[%d]", namespace) {
		return mirror.Process{}
	}
	return describe(dir)
}
