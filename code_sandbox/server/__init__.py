"""The sandbox server: notebook sessions behind HTTP, registered in Redis."""
