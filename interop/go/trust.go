package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// trust is the ledger's key, and those of its cosigners, of whom some must have signed.
type trust struct {
	origin string
	known  note.Verifiers
	need   int
}

// checkpoint is a tree with how many known cosigners signed it.
type checkpoint struct {
	tlog.Tree
	cosigned int
}

func readTrust(vkeyFile, cosignersFile string, need int) (*trust, error) {
	vkey, err := os.ReadFile(vkeyFile)
	if err != nil {
		return nil, err
	}
	ledger, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		return nil, err
	}
	verifiers := []note.Verifier{ledger}
	if cosignersFile != "" {
		lines, err := os.ReadFile(cosignersFile)
		if err != nil {
			return nil, err
		}
		for _, line := range strings.Fields(string(lines)) {
			one, err := newCosigner(line)
			if err != nil {
				return nil, err
			}
			verifiers = append(verifiers, one)
		}
	}
	if need > len(verifiers)-1 {
		return nil, fmt.Errorf("%d cosigners are needed, %d are known", need, len(verifiers)-1)
	}
	return &trust{ledger.Name(), note.VerifierList(verifiers...), need}, nil
}

// open checks a signed checkpoint. note.Open refuses a note if a known key's signature does not fit.
func (t *trust) open(text []byte) (checkpoint, error) {
	var none checkpoint
	opened, err := note.Open(text, t.known)
	if err != nil {
		return none, err
	}
	signers := map[string]bool{}
	for _, signature := range opened.Sigs {
		signers[signature.Name] = true
	}
	if !signers[t.origin] {
		return none, errors.New("the ledger did not sign")
	}
	cosigned := len(signers) - 1
	if cosigned < t.need {
		return none, fmt.Errorf("%d cosigners signed, %d are needed", cosigned, t.need)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != t.origin {
		return none, fmt.Errorf("the checkpoint is not of %s", t.origin)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || lines[1] != strconv.FormatInt(size, 10) {
		return none, fmt.Errorf("tree size `%s`", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return none, err
	}
	return checkpoint{tlog.Tree{N: size, Hash: root}, cosigned}, nil
}

// receipt verifies a c2sp.org/tlog-proof file whose extra data begins with version 1 and the leaf.
func (t *trust) receipt(text []byte) error {
	head, signed, found := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("no proof")
	}
	extra, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	if len(extra) < 3 || extra[0] != 1 || len(extra) < 3+int(binary.BigEndian.Uint16(extra[1:])) {
		return errors.New("no leaf in the extra data")
	}
	leaf := extra[3 : 3+int(binary.BigEndian.Uint16(extra[1:]))]
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	tree, err := t.open(signed)
	if err != nil {
		return err
	}
	if index >= tree.N {
		return errors.New("the index is outside the tree")
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(leaf))
}

// cosigner is a note.Verifier for c2sp.org/tlog-cosignature, which x/mod does not have: a time, then Ed25519 over the
// time and the text.
type cosigner struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (*cosigner, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("`%s` is no verifier key", vkey)
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, fmt.Errorf("`%s` is no key of type 4", vkey)
	}
	hash := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	id := binary.BigEndian.Uint32(hash[:])
	if fmt.Sprintf("%08x", id) != parts[1] {
		return nil, fmt.Errorf("`%s` has another key's id", vkey)
	}
	return &cosigner{parts[0], id, key[1:]}, nil
}

// Name implements note.Verifier.
func (c *cosigner) Name() string { return c.name }

// KeyHash implements note.Verifier.
func (c *cosigner) KeyHash() uint32 { return c.id }

// Verify implements note.Verifier.
func (c *cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(signature), text)
	return ed25519.Verify(c.key, []byte(message), signature[8:])
}
