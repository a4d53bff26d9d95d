// Checks, with Go's own packages, what a Hallmark audit log says: a signed checkpoint and proofs against it.
//
// Standard input is one JSON document:
//
//	{"note": text, "vkeys": [verifier key line of kind 0x01, ...],
//	 "inclusions": [{"index": n, "leaf_hash": base64, "proof": [base64, ...]}, ...],
//	 "consistencies": [{"size": n, "root": base64, "proof": [base64, ...]}, ...]}
//
// Every inclusion is of a leaf in the note's tree; every consistency is of an older tree. Standard output is
// {"origin", "size", "root", "signed_by": [names]}. Exit status: 0 all holds, 1 something does not.
//
// With arguments, `verify DIRECTORY VKEY...`, it checks a copy of a whole log there instead (log.go).
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type question struct {
	Note       string   `json:"note"`
	Vkeys      []string `json:"vkeys"`
	Inclusions []struct {
		Index    int64    `json:"index"`
		LeafHash []byte   `json:"leaf_hash"`
		Proof    [][]byte `json:"proof"`
	} `json:"inclusions"`
	Consistencies []struct {
		Size  int64    `json:"size"`
		Root  []byte   `json:"root"`
		Proof [][]byte `json:"proof"`
	} `json:"consistencies"`
}

type answer struct {
	Origin   string   `json:"origin"`
	Size     int64    `json:"size"`
	Root     string   `json:"root"`
	SignedBy []string `json:"signed_by"`
}

func main() {
	var result *answer
	var err error
	if len(os.Args) > 1 {
		result, err = checkLog(os.Args[1], os.Args[2:])
	} else {
		result, err = check()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		os.Exit(1)
	}
}

func check() (*answer, error) {
	var asked question
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return nil, err
	}
	result, root, err := openCheckpoint(asked.Note, asked.Vkeys)
	if err != nil {
		return nil, err
	}
	for _, in := range asked.Inclusions {
		proof, leaf, err := hashes(in.Proof, in.LeafHash)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckRecord(proof, result.Size, root, in.Index, leaf); err != nil {
			return nil, fmt.Errorf("inclusion of %d: %w", in.Index, err)
		}
	}
	for _, older := range asked.Consistencies {
		proof, olderRoot, err := hashes(older.Proof, older.Root)
		if err != nil {
			return nil, err
		}
		if err := tlog.CheckTree(proof, result.Size, root, older.Size, olderRoot); err != nil {
			return nil, fmt.Errorf("consistency with %d: %w", older.Size, err)
		}
	}
	return result, nil
}

func openCheckpoint(signed string, vkeys []string) (*answer, tlog.Hash, error) {
	var verifiers []note.Verifier
	for _, vkey := range vkeys {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, tlog.Hash{}, err
		}
		verifiers = append(verifiers, verifier)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
	if err != nil {
		return nil, tlog.Hash{}, err
	}
	result, root, err := readCheckpoint(opened.Text)
	if err != nil {
		return nil, tlog.Hash{}, err
	}
	for _, signature := range opened.Sigs {
		result.SignedBy = append(result.SignedBy, signature.Name)
	}
	return result, root, nil
}

func readCheckpoint(text string) (*answer, tlog.Hash, error) {
	var root tlog.Hash
	lines := strings.Split(text, "\n")
	if len(lines) < 4 {
		return nil, root, fmt.Errorf("the note is no checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return nil, root, err
	}
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(raw) != tlog.HashSize {
		return nil, root, fmt.Errorf("the root is no hash")
	}
	copy(root[:], raw)
	return &answer{Origin: lines[0], Size: size, Root: lines[2]}, root, nil
}

func hashes(proof [][]byte, last []byte) ([]tlog.Hash, tlog.Hash, error) {
	var found []tlog.Hash
	for _, raw := range append(append([][]byte{}, proof...), last) {
		var hash tlog.Hash
		if len(raw) != tlog.HashSize {
			return nil, hash, fmt.Errorf("a hash of %d bytes", len(raw))
		}
		copy(hash[:], raw)
		found = append(found, hash)
	}
	return found[:len(found)-1], found[len(found)-1], nil
}
