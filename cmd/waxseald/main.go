// Command waxseald is the router's program.
//
// As process 1 of the initramfs it opens the devices, measures what is about
// to boot into the TPM, starts itself again as the resident agent and hands
// the machine over to the router's own userland. As "waxseald agent" it is
// that resident agent: it answers challenges and enrollment on port 9339, and
// RFC 9684 over RESTCONF on port 8443. As "waxseald watch" it is a tool by
// itself, which says what copies the traffic of network ports.
//
// Whatever fails in it, the router boots and forwards; what failed is told to
// those who ask.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
)

// version is the release.
const version = "0.1.0-dev"

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	os.Exit(run(os.Args, os.Getpid(), log, os.Stdout))
}

func run(args []string, pid int, log *slog.Logger, stdout io.Writer) int {
	if pid == 1 {
		initialise(log)
		return 1
	}
	if len(args) > 1 && args[1] == "watch" {
		return watchPorts(args[2:], stdout, os.Stderr)
	}
	command := ""
	if len(args) == 2 {
		command = args[1]
	}
	var err error
	switch command {
	case "version":
		fmt.Fprintln(stdout, "waxseald", version)
	case "agent":
		showName(log)
		err = supervise(log)
	case "serve":
		showName(log)
		err = serve(log)
	default:
		fmt.Fprintln(stdout, "usage: waxseald agent | serve | watch --ports … | version\n\nWithout arguments it is /init of an initramfs, as process 1.")
		return 2
	}
	if err != nil {
		log.Error("agent stopped", "cause", err)
		return 1
	}
	return 0
}

// showName makes process lists show the program's name: it runs from a memory
// file, which would give it a number.
func showName(log *slog.Logger) {
	if err := os.WriteFile("/proc/self/comm", []byte("waxseald"), 0); err != nil {
		log.Warn("process name", "cause", err)
	}
}

// withoutTime drops the time stamp: a router may have no clock yet, and the
// kernel's log has its own.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
