package main

import (
	"crypto/rand"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"waxseal/measure/manifest/manifesttest"
	"waxseal/measure/manifest/sealed"
)

// shipmentCommand writes the manifest of a device that does not exist, the
// public keys that verify it, and its secret: shipment MANIFEST SIGN SECRET.
func shipmentCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: shipment MANIFEST SIGN SECRET")
	}
	keys, err := sealed.NewKeys(rand.Reader)
	ts.Check(err)
	public, err := keys.Trust().PEM()
	ts.Check(err)
	s, secret, err := manifesttest.Shipment()
	ts.Check(err)
	file, err := s.Seal(keys.Signers()...)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), file, 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), public, 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(secret.Text()+"\n"), 0o600))
}
