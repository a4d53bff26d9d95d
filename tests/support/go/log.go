package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = 8
	width  = 1 << height
)

// checkLog hashes a copy of a whole log again, as C2SP tlog-tiles lays it out: every entry, every tile that a tree of
// the checkpoint's size has, and every other file under tile/, which must be a narrower one of these.
func checkLog(directory string, vkeys []string) (*answer, error) {
	signed, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return nil, err
	}
	result, root, err := openCheckpoint(string(signed), vkeys)
	if err != nil {
		return nil, err
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			if index >= int64(len(stored)) {
				return nil, fmt.Errorf("no hash %d", index)
			}
			found = append(found, stored[index])
		}
		return found, nil
	})
	tiles := tlog.NewTiles(height, 0, result.Size)
	for start := int64(0); start < result.Size; start += width {
		tile := tlog.Tile{H: height, L: -1, N: start / width, W: int(min(width, result.Size-start))}
		tiles = append(tiles, tile)
		leaves, err := readBundle(directory, tile)
		if err != nil {
			return nil, err
		}
		for n, leaf := range leaves {
			more, err := tlog.StoredHashes(start+int64(n), leaf, reader)
			if err != nil {
				return nil, err
			}
			stored = append(stored, more...)
		}
	}
	if result.Size > 0 { // of no entries Go knows no root
		if found, err := tlog.TreeHash(result.Size, reader); err != nil || found != root {
			return nil, fmt.Errorf("the entries hash to %v, signed is %v: %v", found, root, err)
		}
	}
	for _, tile := range tiles {
		if _, err := os.Stat(filepath.Join(directory, pathOf(tile))); err != nil {
			return nil, err
		}
	}
	return result, filepath.WalkDir(filepath.Join(directory, "tile"), func(path string, entry fs.DirEntry, err error) error {
		if entry == nil { // a log of no entries has no tiles
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		return checkTile(directory, path, result.Size, reader)
	})
}

func checkTile(directory, path string, size int64, reader tlog.HashReader) error {
	relative, err := filepath.Rel(filepath.Join(directory, "tile"), path)
	if err != nil {
		return err
	}
	spelt := strings.Replace(filepath.ToSlash(relative), "entries/", "data/", 1)
	tile, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", height, spelt))
	if err != nil {
		return err
	}
	if tile.N<<height+int64(tile.W) > size>>(height*max(tile.L, 0)) {
		return fmt.Errorf("%s is beyond the checkpoint", path)
	}
	if tile.L < 0 {
		leaves, err := readBundle(directory, tile)
		for n, leaf := range leaves {
			index := tile.N<<height + int64(n)
			told, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil || told[0] != tlog.RecordHash(leaf) {
				return fmt.Errorf("entry %d in %s is another: %v", index, path, err)
			}
		}
		return err
	}
	expected, err := tlog.ReadTileData(tile, reader)
	if err != nil {
		return err
	}
	if found, err := os.ReadFile(path); err != nil || !bytes.Equal(found, expected) {
		return fmt.Errorf("%s is not of these entries: %v", path, err)
	}
	return nil
}

// readBundle gives the leaves: each with two bytes of length before it, as many as the tile is wide.
func readBundle(directory string, tile tlog.Tile) ([][]byte, error) {
	path := filepath.Join(directory, pathOf(tile))
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var leaves [][]byte
	for len(data) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(data))
		if end > len(data) {
			break
		}
		leaves, data = append(leaves, data[2:end]), data[end:]
	}
	if len(data) > 0 || len(leaves) != tile.W {
		return nil, fmt.Errorf("%s: %d entries and %d bytes, not %d entries", path, len(leaves), len(data), tile.W)
	}
	return leaves, nil
}

// pathOf spells a tile as C2SP tlog-tiles does: without the height, and `entries` for what Go calls data.
func pathOf(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}
