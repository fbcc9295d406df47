package main

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// hoard is everything that lies in directories: files, and the private keys
// that can be read out of them in any usual form.
type hoard struct {
	files map[string][]byte
	keys  map[string]crypto.Signer // by where they were found
}

func collect(t *testing.T, dirs ...string) hoard {
	t.Helper()
	h := hoard{map[string][]byte{}, map[string]crypto.Signer{}}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			h.files[path] = b
			h.search(path, b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// base64Run is what may be a key in the text of a file.
var base64Run = regexp.MustCompile(`[A-Za-z0-9+/]{60,}={0,2}`)

// search looks for private keys in a file: as it is, in PEM blocks, and in
// base64.
func (h hoard) search(path string, data []byte) {
	found := [][]byte{data}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		found = append(found, block.Bytes)
	}
	for _, run := range base64Run.FindAll(data, -1) {
		if b, err := base64.StdEncoding.DecodeString(string(run)); err == nil {
			found = append(found, b)
		}
	}
	for i, der := range found {
		if key := privateKey(der); key != nil {
			h.keys[fmt.Sprintf("%s, part %d", path, i)] = key
		}
	}
}

func privateKey(der []byte) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, _ := key.(crypto.Signer)
		return signer
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	return nil
}

func (h hoard) has(name string) bool {
	for where := range h.keys {
		if strings.Contains(where, "/"+name+",") {
			return true
		}
	}
	return false
}
