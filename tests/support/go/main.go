package main
import ("golang.org/x/mod/sumdb/note"; "golang.org/x/mod/sumdb/tlog")
var _ = note.Open
var _ = tlog.CheckTree
func main(){}
