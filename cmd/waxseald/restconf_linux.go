package main

import (
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// restconfListen is where RESTCONF is served. RFC 8040 names port 443, which is
// often that of a router's own pages.
const restconfListen = ":8443"

// restconfOption is the option on the kernel's command line that names another
// address, or "off". The command line is measured with the kernel.
const restconfOption = "waxseal.restconf="

// restconfAddress returns where RESTCONF is to be served, empty for nowhere.
// Without a command line nothing is served that might have been turned off.
func restconfAddress(log *slog.Logger) string {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		log.Error("RESTCONF is not served", "cause", err)
		return ""
	}
	return restconfOf(string(line))
}

func restconfOf(commandLine string) string {
	address := restconfListen
	for _, word := range strings.Fields(commandLine) {
		if value, ok := strings.CutPrefix(word, restconfOption); ok {
			address = value
		}
	}
	if address == "off" {
		return ""
	}
	return address
}

// uptime returns the time since the kernel started, sleep included.
func uptime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0 // every kernel since 2.6.39 has it
	}
	return time.Duration(now.Nano())
}
