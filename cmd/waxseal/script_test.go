package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/wire"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"waxseal": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			vendor, err := newVendor()
			if err != nil {
				return err
			}
			nobody, err := deafAddress()
			if err != nil {
				return err
			}
			env.Setenv("NOBODY", nobody)
			env.Values[vendorKey{}] = vendor
			env.Values[chipsKey{}] = map[string]*chip{}
			return os.WriteFile(filepath.Join(env.WorkDir, "vendor-ca.pem"), []byte(wire.ChainOf(vendor.Certificate).String()), 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"router":    routerCommand,
			"reference": referenceCommand,
			"shipment":  shipmentCommand,
			"exit":      exitCommand,
			"replace":   replaceCommand,
		},
	})
}

// deafAddress returns an address at which nobody listens.
func deafAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

type vendorKey struct{}
type chipsKey struct{}

// chipOf returns the TPM of a router, which survives its reboots.
func chipOf(ts *testscript.TestScript, serial string) *chip {
	chips := ts.Value(chipsKey{}).(map[string]*chip)
	if c := chips[serial]; c != nil {
		c.reboot()
		return c
	}
	c, err := newChip(serial)
	ts.Check(err)
	chips[serial] = c
	return c
}

// routerCommand starts a router: router BOOTFILE [serial=S] [owner=FILE]
// [unattested=WHY] [notpm] [newboard]. Its address is put into $ROUTER. A router of the
// same serial number is the same one after a reboot.
func routerCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: router BOOTFILE [key=value...]")
	}
	boot, err := parseBoot(ts.ReadFile(args[0]))
	ts.Check(err)
	c := routerConfig{serial: "WX-0001", vendor: ts.Value(vendorKey{}).(evidencetest.Authority), boot: boot}
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "serial":
			c.serial = value
		case "owner":
			c.ownerCA = []byte(ts.ReadFile(value))
		case "unattested":
			c.unattested = value
		case "newboard":
			delete(ts.Value(chipsKey{}).(map[string]*chip), c.serial)
		case "notpm":
			c.noTPM, c.unattested = true, "no TPM"
		default:
			ts.Fatalf("router: what is %q?", arg)
		}
	}
	if !c.noTPM {
		c.tpm = chipOf(ts, c.serial)
	}
	c.state = ts.MkAbs("state-" + c.serial)
	r, err := startRouter(c)
	ts.Check(err)
	ts.Defer(r.stop)
	ts.Setenv("ROUTER", r.address)
}

// referenceCommand writes the reference values of a boot: reference BOOTFILE FILE.
func referenceCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: reference BOOTFILE FILE")
	}
	boot, err := parseBoot(ts.ReadFile(args[0]))
	ts.Check(err)
	v, err := referenceOf(boot)
	ts.Check(err)
	b, err := v.Encode()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o644))
}

// exitCommand runs a program and demands its exit code: exit CODE PROGRAM [ARGS].
func exitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE PROGRAM [ARGS]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// replaceCommand replaces a text in a file: replace OLD NEW FILE.
func replaceCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace OLD NEW FILE")
	}
	old := ts.ReadFile(args[2])
	if !strings.Contains(old, args[0]) {
		ts.Fatalf("%s does not hold %q", args[2], args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(strings.ReplaceAll(old, args[0], args[1])), 0o644))
}
