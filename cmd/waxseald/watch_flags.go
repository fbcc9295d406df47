package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

const watchUsage = `usage: waxseald watch --ports r0,r1,r2 [--mode full|lite|duty] [--sampling 1/64|auto]
                      [--authorised FILE --approvers FILE [--serial NUMBER]] [-o jsonl|table]

Says on standard output what copies or diverts the traffic of ports, until it
is told to stop. It needs root, no TPM and no fleet, and leaves nothing behind.

`

// watchFlags is the command line of "waxseald watch".
type watchFlags struct {
	ports                 []string
	mode                  string
	sampling              uint32 // one packet in so many; 0: as many as the load allows
	authorised, approvers string // files; empty: nothing is authorised
	serial                string
	pins                  string // folder of a bpffs that keeps the hooks when the process dies; empty: they go with it
	table                 bool
}

// maxSampling is the coarsest sampling: with a packet in 65,536 nothing is
// found in an hour that is not found sooner by its configuration.
const maxSampling = 1 << 16

var watchModes = []string{"full", "lite", "duty"}

// errUsage is an error of the command line that has been told.
var errUsage = errors.New("usage")

// parseWatch reads the command line. What is wrong with it goes to stderr.
func parseWatch(args []string, stderr io.Writer) (watchFlags, error) {
	var f watchFlags
	var ports, sampling, form string
	set := flag.NewFlagSet("watch", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() { fmt.Fprint(stderr, watchUsage); set.PrintDefaults() }
	set.StringVar(&ports, "ports", "", "the router's `PORTS` that are watched, separated by commas; one that is not there yet is awaited")
	set.StringVar(&f.mode, "mode", "full", "how much is looked at: full, lite (only what leaves) or duty (a tenth of the time)")
	set.StringVar(&sampling, "sampling", "auto", "one packet in how many is looked at, as 1/N with N a power of two, or auto")
	set.StringVar(&f.authorised, "authorised", "", "`FILE` with authorised mirrors, signed")
	set.StringVar(&f.approvers, "approvers", "", "`FILE` with those who may authorise mirrors")
	set.StringVar(&f.serial, "serial", "", "serial `NUMBER` of this router, for what is authorised on it alone")
	set.StringVar(&form, "o", "jsonl", "form of the output: jsonl or table")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return f, err
		}
		return f, errUsage // the package has told it
	}
	err := f.check(set.Args(), ports, sampling, form)
	if err != nil {
		fmt.Fprintf(stderr, "waxseald watch: %v\n\n%s", err, watchUsage)
		return f, errUsage
	}
	return f, nil
}

func (f *watchFlags) check(rest []string, ports, sampling, form string) (err error) {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected %q", rest)
	}
	if f.ports, err = parsePorts(ports); err != nil {
		return err
	}
	if !slices.Contains(watchModes, f.mode) {
		return fmt.Errorf("--mode %q: need one of %s", f.mode, strings.Join(watchModes, ", "))
	}
	if f.sampling, err = parseSampling(sampling); err != nil {
		return err
	}
	if (f.authorised == "") != (f.approvers == "") {
		return errors.New("--authorised and --approvers go together: a list of mirrors counts only if someone who may has signed it")
	}
	if f.serial != "" && f.authorised == "" {
		return errors.New("--serial is for --authorised")
	}
	if form != "jsonl" && form != "table" {
		return fmt.Errorf("-o %q: need jsonl or table", form)
	}
	f.table = form == "table"
	return nil
}

// maxPorts is how many ports the tables have room for.
const maxPorts = 64

// maxPortName is the longest name of a network device (IFNAMSIZ - 1, linux/if.h).
const maxPortName = 15

func parsePorts(list string) ([]string, error) {
	if list == "" {
		return nil, errors.New("--ports is missing: which ports does the traffic of others go through?")
	}
	ports := strings.Split(list, ",")
	for i, p := range ports {
		switch {
		case p == "", len(p) > maxPortName, p == ".", p == "..", strings.ContainsAny(p, "/: \t\n\v\f\r\x00"):
			return nil, fmt.Errorf("--ports: %q cannot be the name of a network device", p)
		case slices.Contains(ports[:i], p):
			return nil, fmt.Errorf("--ports: %q is there twice", p)
		}
	}
	if len(ports) > maxPorts {
		return nil, fmt.Errorf("--ports: %d ports, at most %d", len(ports), maxPorts)
	}
	return ports, nil
}

// parseSampling reads "auto" as 0 and "1/64" as 64.
func parseSampling(s string) (uint32, error) {
	if s == "auto" {
		return 0, nil
	}
	digits, ok := strings.CutPrefix(s, "1/")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || digits != strconv.FormatUint(n, 10) || bits.OnesCount64(n) != 1 || n > maxSampling {
		return 0, fmt.Errorf("--sampling %q: need auto or 1/N, where N is a power of two from 1 to %d", s, maxSampling)
	}
	return uint32(n), nil
}
