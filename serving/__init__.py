"""Model servers and what runs beside them: started, watched, balanced and stopped; imports nothing of ours."""
